//! YAML files, `model-config.yaml` first of all, as JSON values.
//!
//! Scalars get the types that PyYAML's safe loader gives them (YAML 1.1: `yes` is true, `0x10` is 16, `1e5`
//! is text), because handlers were written against it; three things that JSON has no word for stay text:
//! dates, infinity and not-a-number. Keys become text. What an archive can make this cost is limited, aliases
//! included. Knows no key of the file.

mod scalar;

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

/// The longest text that is looked at.
const MAX_TEXT: usize = 1 << 20;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;
/// What all values may weigh, each alias counted as what it stands for.
const MAX_WEIGHT: usize = 8 << 20;
/// What a value weighs beside its text.
const NODE_WEIGHT: usize = 32;
/// How the tags of YAML itself begin.
const CORE: &str = "tag:yaml.org,2002:";

/// Why a text is no model configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    line: usize,
    column: usize,
    problem: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.problem)
    }
}

impl std::error::Error for YamlError {}

/// The keys of a document; none if it is empty.
pub(crate) fn parse(text: &str) -> Result<Map<String, Value>, YamlError> {
    if text.len() > MAX_TEXT {
        return Err(YamlError { line: 1, column: 1, problem: format!("longer than {MAX_TEXT} bytes") });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            problem: error.info().to_owned(),
        })?;
        let (line, column) = (span.start.line(), span.start.col() + 1);
        builder.take(event).map_err(|problem| YamlError { line, column, problem })?;
    }
    match builder.document {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(keys)) => Ok(keys),
        Some(_) => {
            Err(YamlError { line: 1, column: 1, problem: "the document must be keys with values".to_owned() })
        }
    }
}

/// A sequence or mapping that isn't closed yet.
#[derive(Debug)]
struct Open {
    anchor: usize,
    /// What everything weighed before it.
    before: usize,
    items: Items,
}

#[derive(Debug)]
enum Items {
    Sequence(Vec<Value>),
    Mapping {
        keys: Map<String, Value>,
        /// Mappings under `<<`, which the other keys override.
        merged: Vec<Value>,
        key: Option<Key>,
    },
}

#[derive(Debug)]
enum Key {
    Named(String),
    Merge,
}

#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    /// What aliases stand for, and what it weighs.
    anchors: HashMap<usize, (Value, usize)>,
    documents: usize,
    document: Option<Value>,
    weight: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { Err("a second document".to_owned()) } else { Ok(()) }
            }
            Event::Alias(anchor) => {
                let weight = self.anchors.get(&anchor).map_or(0, |(_, weight)| *weight);
                self.spend(weight)?;
                let value = self.anchors.get(&anchor).map(|(value, _)| value.clone());
                self.place(value.ok_or("an alias inside of what it stands for")?)
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref()),
            Event::SequenceStart(anchor, tag) => {
                self.start(anchor, tag.as_deref(), "seq", Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let items = Items::Mapping { keys: Map::new(), merged: Vec::new(), key: None };
                self.start(anchor, tag.as_deref(), "map", items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn spend(&mut self, weight: usize) -> Result<(), String> {
        self.weight += weight;
        if self.weight > MAX_WEIGHT {
            return Err(format!("more than {MAX_WEIGHT} bytes of values, aliases expanded"));
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), String> {
        let weight = NODE_WEIGHT + text.len();
        self.spend(weight)?;
        let plain = style == ScalarStyle::Plain && tag.is_none();
        if plain
            && text == "<<"
            && let Some(Open { items: Items::Mapping { key: key @ None, .. }, .. }) = self.open.last_mut()
        {
            *key = Some(Key::Merge);
            return Ok(());
        }
        let value = match tag {
            None if plain => scalar::plain(text),
            None => Value::from(text),
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Value::from(text),
            Some(tag) => scalar::tagged(text, core_name(tag)?)?,
        };
        self.remember(anchor, &value, weight)?;
        self.place(value)
    }

    fn start(&mut self, anchor: usize, tag: Option<&Tag>, kind: &str, items: Items) -> Result<(), String> {
        if let Some(tag) = tag
            && core_name(tag)? != kind
        {
            return Err(format!("the tag {tag} doesn't suit a {kind}"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        let before = self.weight;
        self.spend(NODE_WEIGHT)?;
        self.open.push(Open { anchor, before, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { anchor, before, items }) = self.open.pop() else {
            return Err("an end without a start".to_owned());
        };
        let value = match items {
            Items::Sequence(values) => Value::Array(values),
            Items::Mapping { keys, merged, .. } => Value::Object(merge(merged, keys)?),
        };
        self.remember(anchor, &value, self.weight - before)?;
        self.place(value)
    }

    fn remember(&mut self, anchor: usize, value: &Value, weight: usize) -> Result<(), String> {
        // 0: not anchored.
        if anchor != 0 {
            // Anchors in anchors keep what is inside once for each level.
            self.spend(weight)?;
            self.anchors.insert(anchor, (value.clone(), weight));
        }
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, value: Value) -> Result<(), String> {
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.document = Some(value),
            Some(Items::Sequence(values)) => values.push(value),
            Some(Items::Mapping { keys, merged, key }) => match key.take() {
                None => *key = Some(Key::Named(key_text(value)?)),
                Some(Key::Merge) => merged.push(value),
                // Given twice, the later one counts, as in Python.
                Some(Key::Named(name)) => drop(keys.insert(name, value)),
            },
        }
        Ok(())
    }
}

/// The name of a tag of YAML itself. Others would make objects, which a safe loader refuses.
fn core_name(tag: &Tag) -> Result<&str, String> {
    if tag.handle == CORE {
        return Ok(&tag.suffix);
    }
    tag.suffix.strip_prefix(CORE).ok_or_else(|| format!("the tag {tag} isn't supported"))
}

/// A key as text; Python would take numbers and truth values as they are.
fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Null => Ok("null".to_owned()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(_) | Value::Object(_) => Err("a key must be text".to_owned()),
    }
}

/// What `<<` brings in, under the mapping's own keys. Of several, the first that has a key wins.
fn merge(merged: Vec<Value>, own: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for value in merged {
        let sources = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for source in sources {
            let Value::Object(keys) = source else {
                return Err("`<<` must name keys with values, or a list of such".to_owned());
            };
            for (key, value) in keys {
                all.entry(key).or_insert(value);
            }
        }
    }
    all.extend(own);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_become_json() {
        let cases = [
            ("", json!({})),
            ("---\n...\n", json!({})),
            ("\u{feff}a: 1", json!({"a": 1})),
            ("a: {b: [1, 'x', \"y\"]}\nc:\n", json!({"a": {"b": [1, "x", "y"]}, "c": null})),
            ("a: |\n  two\n  lines\n", json!({"a": "two\nlines\n"})),
            ("1: a\ntrue: b\n~: c\n", json!({"1": "a", "true": "b", "null": "c"})),
            ("a: 1\na: 2\n", json!({"a": 2})),
            ("a: &x [1, 2]\nb: *x\n", json!({"a": [1, 2], "b": [1, 2]})),
            ("a: !!str 1\nb: !!int '2'\nc: ! 3\nd: !!map {}", json!({"a": "1", "b": 2, "c": "3", "d": {}})),
            (
                "base: &b {x: 1, y: 2}\nm: {y: 3, <<: *b}\n",
                json!({"base": {"x": 1, "y": 2}, "m": {"x": 1, "y": 3}}),
            ),
            (
                "l: [&a {x: 1}, &b {x: 2, z: 3}]\nm:\n  <<: [*a, *b]\n",
                json!({"l": [{"x": 1}, {"x": 2, "z": 3}], "m": {"x": 1, "z": 3}}),
            ),
            ("'<<': 1", json!({"<<": 1})),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).map(Value::Object), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_isnt_a_configuration_is_named_with_its_place() {
        let cases = [
            ("- 1", "must be keys with values"),
            ("just text", "must be keys with values"),
            ("a: 1\n---\nb: 2", "line 2, column 1: a second document"),
            ("a: [1", "line "),
            ("a: *nowhere", "line 1, column 4"),
            ("a: &x [*x]", "alias inside of what it stands for"),
            ("a: !!python/object/apply:os.system [ls]", "doesn't suit a seq"),
            ("a: !!python/name:os.system", "isn't supported"),
            ("a: !mine 1", "the tag !mine isn't supported"),
            ("a: !!seq {}", "doesn't suit"),
            ("a: !!int x", "`x` isn't an int"),
            ("? [1]\n: 2", "a key must be text"),
            ("a: {<<: 1}", "`<<` must name"),
            ("a:\n\t- 1", "line 2"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn depth_length_and_expansion_are_limited() {
        let deep = format!("a: {}{}", "[".repeat(63), "]".repeat(63));
        assert!(parse(&deep).is_ok());
        let deeper = format!("a: {}{}", "[".repeat(64), "]".repeat(64));
        assert!(parse(&deeper).unwrap_err().to_string().contains("nested deeper than 64"));
        assert!(parse(&"[".repeat(500_000)).is_err());

        let long = format!("a: {}", "x".repeat(MAX_TEXT));
        assert!(parse(&long).unwrap_err().to_string().contains("longer than"));

        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(parse(&laughs).unwrap_err().to_string().contains("aliases expanded"));

        let text = "x".repeat(500_000);
        let aliases = vec!["*t"; 1000].join(", ");
        assert!(
            parse(&format!("t: &t {text}\nu: [{aliases}]")).unwrap_err().to_string().contains("expanded")
        );
    }

    #[test]
    fn anchors_inside_of_anchors_are_limited() {
        let open: String = (0..60).map(|level| format!("&a{level} [")).collect();
        let text = format!("a: {open}{}{}", "x,".repeat(100_000), "]".repeat(60));
        assert!(parse(&text).unwrap_err().to_string().contains("aliases expanded"));
    }

    /// Whatever stands there, the answer is values or an error with its place.
    #[test]
    fn mutated_documents_never_panic() {
        let corpus = [
            "minWorkers: 1\nmaxWorkers: 2\nhandler:\n  profile: yes\n  list: [1, 'two', \"t\\x68ree\"]\n",
            "base: &b {x: 1, y: !!str 2}\nm: {<<: *b, y: 3}\n? complex\n: - a\n  - |\n   text\n  - >-\n   folded\n",
            "%YAML 1.1\n---\n# c\na: &x [*y, {b: ~}]\n...\n",
        ];
        let pieces = [
            "&", "*", "[", "]", "{", "}", ":", "?", "-", "\n", " ", "\t", "!", "|", ">", "'", "\"", "%", "#",
            "<<: ", "é", "\u{85}", "\0",
        ];
        let mut random = 0x5EED_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for round in 0..5_000 {
            let mut text: Vec<char> = corpus[round % corpus.len()].chars().collect();
            for _ in 0..=next(4) {
                let (from, length) = (next(text.len()), next(6));
                let to = (from + length).min(text.len());
                let piece: Vec<char> = match next(3) {
                    0 => vec![],
                    1 => pieces[next(pieces.len())].chars().collect(),
                    _ => text[from..to].repeat(2),
                };
                text.splice(from..to, piece);
                text.push('\n');
            }
            let text: String = text.into_iter().collect();
            let parsed = std::panic::catch_unwind(|| parse(&text));
            assert!(parsed.is_ok(), "{text:?}");
        }
    }
}
