//! Addition of counts, field by field.

/// Implements `+=` for types whose fields all have it; a field that is not named does not compile.
macro_rules! add_fields {
    ($($type:ident { $($field:ident),+ })+) => {$(
        impl std::ops::AddAssign for $type {
            fn add_assign(&mut self, other: Self) {
                let Self { $($field),+ } = other;
                $(self.$field += $field;)+
            }
        }
    )+};
}

pub(super) use add_fields;
