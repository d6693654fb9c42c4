//! Just enough JSON to write an object: the family builds without a JSON library.

use std::fmt::Write;
use std::time::Duration;

/// Writes the members of one object.
pub(super) struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn new(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    pub(super) fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        write_string(self.out, value);
        self
    }

    pub(super) fn number(&mut self, key: &str, value: usize) -> &mut Self {
        self.key(key);
        let _ = write!(self.out, "{value}");
        self
    }

    pub(super) fn seconds(&mut self, key: &str, value: Duration) -> &mut Self {
        self.key(key);
        let _ = write!(self.out, "{}.{:03}", value.as_secs(), value.subsec_millis());
        self
    }

    pub(super) fn array<T>(
        &mut self,
        key: &str,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(T, &mut Object<'_>),
    ) -> &mut Self {
        self.key(key);
        self.out.push('[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            let mut object = Object::new(self.out);
            write(item, &mut object);
            object.end();
        }
        self.out.push(']');
        self
    }

    pub(super) fn end(self) {
        self.out.push('}');
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        write_string(self.out, key);
        self.out.push(':');
    }
}

/// RFC 8259, section 7: quotation mark, reverse solidus and the control characters are escaped, all else stands as it is.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        write_string(&mut out, text);
        out
    }

    #[test]
    fn what_must_be_escaped_is() {
        assert_eq!(written("a\"b\\c\n\r\t\u{0}\u{1f}\u{7f}ä€𝄞"), "\"a\\\"b\\\\c\\n\\r\\t\\u0000\\u001f\u{7f}ä€𝄞\"");
    }

    #[test]
    fn members_are_parted_by_commas() {
        let mut out = String::new();
        let mut object = Object::new(&mut out);
        object.string("a", "b").number("n", 7).seconds("s", Duration::from_millis(61_005));
        object.array("list", 0..2, |item, object| {
            object.number("item", item);
        });
        object.array("none", 0..0, |_: i32, _| ());
        object.end();
        assert_eq!(out, r#"{"a":"b","n":7,"s":61.005,"list":[{"item":0},{"item":1}],"none":[]}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_by_a_json_library(text in "(\\PC|[\\x00-\\x1f\"\\\\]){0,40}") {
            prop_assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }
    }
}
