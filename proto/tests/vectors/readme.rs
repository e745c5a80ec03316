//! What proto/vectors/README.md says of the vectors is so.

use std::fs;

use crate::{
    json::{self, Hex, VALID},
    reasons::told,
};

fn readme() -> String {
    fs::read_to_string(json::path("README").with_extension("md")).unwrap()
}

#[test]
fn the_worked_example_is_a_vectors() {
    let readme = readme();
    let block = readme.split("```sig-structure\n").nth(1).unwrap().split("```").next().unwrap();
    let digits = block.lines().map(|line| line.split('#').next().unwrap());
    let digits: String = digits.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    let files = json::all();
    let own = files.iter().flat_map(|file| &file.vectors).find(|vector| vector.id == "consent-token/own").unwrap();
    assert_eq!(Hex::try_from(digits).unwrap(), own.parts.as_ref().unwrap().signatures[0].sig_structure);
}

#[test]
fn every_operation_and_every_reason_is_explained() {
    let (readme, files) = (readme(), json::all());
    for vector in files.iter().flat_map(|file| &file.vectors) {
        let operation = serde_json::to_value(vector.operation).unwrap();
        assert!(readme.contains(&format!("`{}`", operation.as_str().unwrap())), "{operation}");
    }
    for reason in told(&files).into_iter().filter(|reason| *reason != VALID) {
        assert!(readme.contains(reason), "{reason}");
    }
}

#[test]
fn the_vectors_it_names_are_there() {
    let (readme, files) = (readme(), json::all());
    let ids: Vec<_> = files.iter().flat_map(|file| &file.vectors).map(|vector| vector.id.as_str()).collect();
    let named = readme.split('`').skip(1).step_by(2).filter(|code| {
        json::FILES.iter().any(|name| code.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
    });
    let named: Vec<_> = named.collect();
    assert!(named.len() > 5, "{named:?}");
    for id in named {
        assert!(ids.contains(&id), "{id}");
    }
    let refused = files.iter().flat_map(|file| &file.vectors).filter(|vector| vector.verdict != VALID).count();
    assert!(refused > 600, "{refused}");
}
