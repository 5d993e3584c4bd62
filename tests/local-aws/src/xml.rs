//! A writer of the XML documents of the Query protocols.

pub(crate) const EC2_NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
pub(crate) const STS_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Builds one XML document. The caller must close every element that it opens.
pub(crate) struct Xml {
    text: String,
    style: Style,
}

/// The style of a legal document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// As AWS writes it.
    #[default]
    Plain,
    /// With unknown fields, comments and numeric character references.
    Unusual,
    /// Every text in a CDATA section.
    CData,
}

/// The characters that must be escaped in a text.
const ESCAPED: [char; 6] = ['&', '<', '>', '"', '\'', '\r'];

impl Xml {
    pub(crate) fn document(root: &str, namespace: Option<&str>, style: Style) -> Self {
        let mut text = String::with_capacity(1024);
        text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        if style == Style::Unusual {
            text.push_str("<!-- A comment before the root -->\n");
        }
        match namespace {
            Some(namespace) => text.push_str(&format!("<{root} xmlns=\"{namespace}\">")),
            None => text.push_str(&format!("<{root}>")),
        }
        Self { text, style }
    }

    pub(crate) fn open(&mut self, name: &str) {
        self.text.extend(["\n<", name, ">"]);
        if self.style == Style::Unusual {
            self.text.push_str("<!-- A comment -->");
        }
    }

    pub(crate) fn close(&mut self, name: &str) {
        // Only in a structure: in a list, one more field would be one more element.
        if self.style == Style::Unusual && name == "item" {
            self.text.push_str(
                "<memberOfTheFuture><item><state>pending</state></item></memberOfTheFuture>",
            );
        }
        self.text.extend(["</", name, ">"]);
    }

    pub(crate) fn empty(&mut self, name: &str) {
        self.text.extend(["\n<", name, "/>"]);
    }

    /// Writes an element that contains only text.
    pub(crate) fn leaf(&mut self, name: &str, value: &str) {
        self.text.extend(["\n<", name, ">"]);
        match self.style {
            // Nearly every text, so this path is fast: the benchmarks wait for it.
            Style::Plain if !value.contains(ESCAPED) => self.text.push_str(value),
            Style::Plain => value.chars().for_each(|letter| self.letter(letter)),
            Style::Unusual => {
                for (index, letter) in value.chars().enumerate() {
                    if index % 3 == 0 {
                        self.text.push_str(&format!("&#x{:x};", u32::from(letter)));
                    } else {
                        self.letter(letter);
                    }
                }
            }
            Style::CData => {
                self.text.push_str("<![CDATA[");
                self.text.push_str(&value.replace("]]>", "]]]]><![CDATA[>"));
                self.text.push_str("]]>");
            }
        }
        self.text.extend(["</", name, ">"]);
    }

    /// Writes an element if there is a value.
    pub(crate) fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.leaf(name, value);
        }
    }

    pub(crate) fn finish(mut self, root: &str) -> String {
        if self.style == Style::Unusual {
            self.text
                .push_str("\n<memberOfTheFuture>1</memberOfTheFuture>");
        }
        self.text.extend(["\n</", root, ">"]);
        self.text
    }

    fn letter(&mut self, letter: char) {
        match letter {
            '&' => self.text.push_str("&amp;"),
            '<' => self.text.push_str("&lt;"),
            '>' => self.text.push_str("&gt;"),
            '"' => self.text.push_str("&quot;"),
            '\'' => self.text.push_str("&#39;"),
            // A parser would read a bare one as a line feed.
            '\r' => self.text.push_str("&#xD;"),
            letter => self.text.push(letter),
        }
    }
}
