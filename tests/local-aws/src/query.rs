//! Requests of the Query protocols: a form of flat names such as `Filter.1.Value.2`.

use std::collections::BTreeMap;

/// The parameters of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(form: &[u8]) -> Self {
        let mut parameters = BTreeMap::new();
        for pair in form.split(|byte| *byte == b'&') {
            if pair.is_empty() {
                continue;
            }
            let split = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = match split {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            parameters.insert(decode(name), decode(value));
        }
        Self(parameters)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the numbers N of all parameters `prefix.N` and `prefix.N.…`, sorted.
    pub(crate) fn numbers(&self, prefix: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .0
            .keys()
            .filter_map(|name| name.strip_prefix(prefix)?.strip_prefix('.'))
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Returns the values of `prefix.1`, `prefix.2` and so on, sorted by number.
    pub(crate) fn list(&self, prefix: &str) -> Vec<&str> {
        self.numbers(prefix)
            .into_iter()
            .filter_map(|number| self.get(&format!("{prefix}.{number}")))
            .collect()
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(crate) fn parameters(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Finds a parameter that is not in `known`, where `N` is any number.
    pub(crate) fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| {
            let shape: Vec<&str> = name
                .split('.')
                .map(|part| {
                    let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
                    if is_number && !part.is_empty() {
                        "N"
                    } else {
                        part
                    }
                })
                .collect();
            !known.contains(&shape.join(".").as_str())
        })
    }
}

/// Decodes one percent-encoded name or value of a form.
pub(crate) fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.as_slice().get(..2);
                let decoded = digits
                    .and_then(|digits| std::str::from_utf8(digits).ok())
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                match decoded {
                    Some(decoded) => {
                        bytes.push(decoded);
                        rest.nth(1);
                    }
                    None => bytes.push(b'%'),
                }
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_by_number_beyond_nine() {
        let form: Vec<String> = (1..=12).map(|n| format!("ImageId.{n}=ami-{n}")).collect();
        let query = Query::parse(form.join("&").as_bytes());
        assert_eq!(query.list("ImageId")[1], "ami-2");
        assert_eq!(query.list("ImageId")[11], "ami-12");
    }

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::parse("a%2Bb=1+2%203&u=%C3%A9%F0%9F%9A%80&odd=100%&bare".as_bytes());
        assert_eq!(query.get("a+b"), Some("1 2 3"));
        assert_eq!(query.get("u"), Some("é🚀"));
        assert_eq!(query.get("odd"), Some("100%"));
        assert_eq!(query.get("bare"), Some(""));
    }

    #[test]
    fn a_parameter_of_unknown_shape_is_found() {
        let query = Query::parse(b"Filter.1.Name=a&Filter.1.Vale.1=b");
        assert_eq!(
            query.unknown(&["Filter.N.Name", "Filter.N.Value.N"]),
            Some("Filter.1.Vale.1")
        );
    }
}
