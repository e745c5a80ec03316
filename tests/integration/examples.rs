//! `deploy/gateway.toml` and `deploy/node.toml` say all that can be said: every key that the program knows and no other, each
//! with its default, its bounds as they are, and a word on what it does.
//!
//! What a program knows and what it does without a key is asked of the program itself, so that a new key, a new default or
//! a new bound fails here until the example says it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::Path,
    time::Duration,
};

use humantime_serde::re::humantime::{format_duration, parse_duration};
use peer::config::ConfigError;
use tempfile::TempDir;
use toml::{Table, Value};

/// One program's example.
struct Example {
    table: Table,
    /// What is said above each key and section, by its dotted name.
    comments: BTreeMap<String, String>,
    read: fn(&Path) -> Result<String, ConfigError>,
    /// Where it is read from, always under the same name: relative paths start there.
    dir: TempDir,
}

/// A program's configuration as it is understood, for comparison.
fn shown<C: Debug>(config: Result<C, ConfigError>) -> Result<String, ConfigError> {
    config.map(|config| format!("{config:#?}"))
}

fn examples() -> [Example; 2] {
    let gateway = Example::open("gateway.toml", |path| shown(gateway::config::Config::read(path)));
    let node = Example::open("node.toml", |path| shown(province_stub::config::Config::read(path)));
    [gateway, node]
}

impl Example {
    fn open(name: &str, read: fn(&Path) -> Result<String, ConfigError>) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
        let text = fs::read_to_string(&path).unwrap();
        let comments = comments(&text);
        Self { table: text.parse().unwrap(), comments, read, dir: tempfile::tempdir().unwrap() }
    }

    /// What the program makes of another table.
    fn understood(&self, table: &Table) -> Result<String, String> {
        let path = self.dir.path().join("example.toml");
        fs::write(&path, table.to_string()).unwrap();
        (self.read)(&path).map_err(|error| error.to_string())
    }

    /// What the program makes of the example with a change to the table that holds a key.
    fn changed(&self, name: &str, change: impl FnOnce(&mut Table, &str)) -> Result<String, String> {
        let mut table = self.table.clone();
        let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
        let mut at = &mut table;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            at = at[part].as_table_mut().unwrap();
        }
        change(at, key);
        self.understood(&table)
    }

    fn without(&self, name: &str) -> Result<String, String> {
        self.changed(name, |table, key| drop(table.remove(key)))
    }

    fn with(&self, name: &str, value: impl Into<Value>) -> Result<String, String> {
        self.changed(name, |table, key| drop(table.insert(key.into(), value.into())))
    }

    /// Every key and section that the program knows, by its dotted name: it lists them when it refuses one.
    fn known(&self, section: &str, into: &mut BTreeSet<String>) {
        let refusal = self.with(&format!("{section}no_such_key"), 1).expect_err("a key that nobody knows is refused");
        let (_, expected) = refusal.split_once("unknown field `no_such_key`, expected ").expect(&refusal);
        let tables = self.stated(Value::is_table);
        for key in expected.split('`').skip(1).step_by(2) {
            let name = format!("{section}{key}");
            if tables.contains(&name) {
                self.known(&format!("{name}."), into);
            }
            into.insert(name);
        }
    }

    /// Every key and section of the example whose value is one of these, by its dotted name.
    fn stated(&self, of: fn(&Value) -> bool) -> BTreeSet<String> {
        fn walk(table: &Table, section: &str, of: fn(&Value) -> bool, into: &mut BTreeSet<String>) {
            for (key, value) in table {
                if of(value) {
                    into.insert(format!("{section}{key}"));
                }
                if let Some(table) = value.as_table() {
                    walk(table, &format!("{section}{key}."), of, into);
                }
            }
        }
        let mut names = BTreeSet::new();
        walk(&self.table, "", of, &mut names);
        names
    }
}

/// The comment lines right above each key and section.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut comments, mut section, mut above) = (BTreeMap::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            above += comment;
        } else if let Some(head) = line.strip_prefix('[') {
            let name = head.trim_end_matches(']');
            comments.insert(name.to_owned(), std::mem::take(&mut above));
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ") {
            comments.insert(format!("{section}{key}"), std::mem::take(&mut above));
        } else {
            above.clear();
        }
    }
    comments
}

#[test]
fn every_key_of_a_program_is_stated_and_no_other() {
    for example in examples() {
        example.understood(&example.table).unwrap();
        let mut known = BTreeSet::new();
        example.known("", &mut known);
        assert_eq!(example.stated(|_| true), known);
    }
}

#[test]
fn every_key_is_explained() {
    for example in examples() {
        for name in example.stated(|_| true) {
            let comment = example.comments.get(&name).map(String::as_str).unwrap_or_default();
            let said = comment.split("Required.").next().unwrap_or_default();
            assert!(said.split_whitespace().count() >= 3, "{name} is not explained: {comment:?}");
        }
    }
}

#[test]
fn what_is_not_required_has_its_default() {
    for example in examples() {
        let whole = example.understood(&example.table);
        for name in example.stated(|_| true) {
            let comment = &example.comments[&name];
            let (required, off) = (comment.contains("Required."), comment.contains("Off unless said."));
            match example.without(&name) {
                Err(error) => assert!(required && error.contains("missing field"), "{name}: {error}"),
                without if without == whole => assert!(!required && !off, "{name} has a default"),
                without => {
                    assert!(off && !required, "{name} is not the default\n{}\n{}", whole.unwrap(), without.unwrap());
                }
            }
        }
    }
}

#[test]
fn bounds_are_as_they_are_said() {
    let mut held = 0;
    for example in examples() {
        for (name, comment) in &example.comments {
            let Some((_, bounds)) = comment.split_once("Bounds: ") else { continue };
            let (min, rest) = bounds.split_once(" to ").expect(name);
            let max = rest.split_once('.').expect(name).0;
            // Refused is what names this key: a bound of another key may depend on it.
            let refused = |value: &Value| {
                let error = example.with(name, value.clone()).err();
                error.is_some_and(|error| error.contains(&format!("{name} = ")))
            };
            let (inside, outside) = around(&example, name, min, max);
            inside.iter().for_each(|value| assert!(!refused(value), "{name} = {value} is refused"));
            outside.iter().for_each(|value| assert!(refused(value), "{name} = {value} is not refused"));
            held += 1;
        }
    }
    assert!(held >= 30, "only {held} keys have their bounds said");
}

/// The bounds themselves, and a value beyond each: of numbers, of durations, or up to another key of the section.
fn around(example: &Example, name: &str, min: &str, max: &str) -> ([Value; 2], [Value; 2]) {
    if let (Ok(min), Ok(max)) = (min.parse::<i64>(), max.parse::<i64>()) {
        return ([min, max].map(Value::Integer), [min - 1, max + 1].map(Value::Integer));
    }
    let other = max.strip_prefix('`').and_then(|max| max.strip_suffix('`'));
    let other = other.map(|other| &example.table[name.rsplit_once('.').expect(name).0][other]);
    if let (Ok(min), Some(Value::Integer(max))) = (min.parse::<i64>(), other) {
        return ([min, *max].map(Value::Integer), [min - 1, max + 1].map(Value::Integer));
    }
    let max = other.map_or(max, |other| other.as_str().expect(name));
    let below = parse_duration(min).expect(name) - Duration::from_millis(1);
    ([min, max].map(Value::from), [format_duration(below).to_string().into(), format!("{max} 1ms").into()])
}
