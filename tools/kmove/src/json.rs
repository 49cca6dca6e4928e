//! JSON as `xl list -l` prints it.

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Json {
    /// `null`, `true` and `false`, and numbers, as they stand there.
    Plain(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, in its order.
    Object(Vec<(String, Json)>),
}

/// Values within values that are followed.
const DEEPEST: usize = 32;

impl Json {
    /// Returns the value that `text` is; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser(text.trim_start());
        let value = parser.value(DEEPEST)?;
        parser.0.trim_start().is_empty().then_some(value)
    }

    /// Returns a member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// Returns the members of an object; none of anything else.
    pub fn members(&self) -> impl Iterator<Item = &(String, Self)> {
        match self {
            Self::Object(members) => members.iter(),
            _ => [].iter(),
        }
    }

    /// Returns the elements of a list; none of anything else.
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::List(elements) => elements,
            _ => &[],
        }
    }

    /// Returns a string or number as text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a number.
    pub fn number(&self) -> Option<u64> {
        self.text()?.parse().ok()
    }

    /// Returns whether it says nothing: null, false, or nothing in it.
    pub fn is_nothing(&self) -> bool {
        match self {
            Self::Plain(text) => text == "null" || text == "false",
            Self::Text(text) => text.is_empty() || text == "False",
            Self::List(elements) => elements.iter().all(Self::is_nothing),
            Self::Object(members) => members.iter().all(|(_, value)| value.is_nothing()),
        }
    }
}

struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn skip(&mut self, token: char) -> bool {
        let rest = self.0.trim_start();
        match rest.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => {
                self.0 = rest;
                false
            }
        }
    }

    fn value(&mut self, deep: usize) -> Option<Json> {
        let deep = deep.checked_sub(1)?;
        if self.skip('{') {
            let mut members = Vec::new();
            while !self.skip('}') {
                if !members.is_empty() && !self.skip(',') {
                    return None;
                }
                let name = self.skip('"').then(|| self.string())??;
                if !self.skip(':') {
                    return None;
                }
                members.push((name, self.value(deep)?));
            }
            Some(Json::Object(members))
        } else if self.skip('[') {
            let mut elements = Vec::new();
            while !self.skip(']') {
                if !elements.is_empty() && !self.skip(',') {
                    return None;
                }
                elements.push(self.value(deep)?);
            }
            Some(Json::List(elements))
        } else if self.skip('"') {
            self.string().map(Json::Text)
        } else {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
            let end = self.0.find(|c| !is_plain(c)).unwrap_or(self.0.len());
            let (plain, rest) = self.0.split_at(end);
            self.0 = rest;
            (!plain.is_empty()).then(|| Json::Plain(plain.to_owned()))
        }
    }

    /// Reads the rest of a string, behind its opening quote.
    fn string(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => match chars.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    'u' => {
                        let digits: String = chars.by_ref().take(4).collect();
                        text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        self.0 = chars.as_str();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn values_are_read_and_others_refused() {
        let value = Json::parse(r#" {"a": [1, "two\n\u0041", {"b": null}], "c": "", "d": {}} "#);
        let value = value.unwrap();
        let list = value.get("a").unwrap().elements();
        assert_eq!(list[0].number(), Some(1));
        assert_eq!(list[1].text(), Some("two\nA"));
        assert!(list[2].is_nothing() && value.get("c").unwrap().is_nothing());
        assert!(value.get("d").unwrap().is_nothing() && !value.is_nothing());
        for wrong in ["", "{", "[1 2]", "{\"a\" 1}", "\"open", "1 2", "{1: 2}"] {
            assert_eq!(Json::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Json::parse(&"[".repeat(100)), None);
    }
}
