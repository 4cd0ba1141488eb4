//! Step outputs and the job summary: files that the runner reads after the step.

use std::collections::hash_map::RandomState;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::Path;

/// Appends outputs to the file of `GITHUB_OUTPUT`.
///
/// Each is written in the form with a delimiter. The delimiter is random and not part
/// of the value, so no value can end it and set another output.
///
/// # Errors
/// Of the file system.
pub fn write_outputs(path: &Path, outputs: &[(&str, String)]) -> io::Result<()> {
    let mut text = String::new();
    for (name, value) in outputs {
        let delimiter = delimiter(value);
        text.push_str(&format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"));
    }
    append(path, &text)
}

/// Appends Markdown to the file of `GITHUB_STEP_SUMMARY`.
///
/// # Errors
/// Of the file system.
pub fn append_summary(path: &Path, markdown: &str) -> io::Result<()> {
    append(path, markdown)
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

fn delimiter(value: &str) -> String {
    loop {
        // The standard library seeds each state anew from the system's random numbers.
        let random = || RandomState::new().build_hasher().finish();
        let delimiter = format!("ghadelimiter_{:016x}{:016x}", random(), random());
        if !value.contains(&delimiter) {
            return delimiter;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Reads the file as the runner does (actions/runner, FileCommandManager.cs).
    fn parse(text: &str) -> BTreeMap<String, String> {
        let mut outputs = BTreeMap::new();
        let mut lines = text.split('\n');
        while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
            let (name, delimiter) = line.split_once("<<").unwrap();
            let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
            outputs.insert(name.to_owned(), value.join("\n"));
        }
        outputs
    }

    #[test]
    fn delimiters_differ() {
        assert_ne!(delimiter(""), delimiter(""));
    }

    proptest! {
        #[test]
        fn any_value_comes_back_alone(value in "(?s)(.|\\n|<<|EOF|x=y){0,40}") {
            let file = tempfile::NamedTempFile::new().unwrap();
            write_outputs(file.path(), &[("one", value.clone()), ("two", "2".into())]).unwrap();
            let outputs = parse(&std::fs::read_to_string(file.path()).unwrap());
            prop_assert_eq!(outputs.len(), 2);
            prop_assert_eq!(&outputs["one"], &value);
        }
    }
}
