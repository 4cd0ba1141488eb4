use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Strings of the characters and sequences that matter to HCL, and of any others.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => prop::sample::select(vec![
            "$", "%", "{", "}", "${", "%{", "$${", "%%{", "~", "\"", "\\", "\n", "\r", "\r\n",
            "\t", "\0", "\u{1b}", "\u{feff}", "\u{2028}", "\u{202e}", "#", "//", "/*", "*/", "=",
            "EOT", "<<", "\"\n  }\n}\nprovider \"x\" {}\n", "\"\nprofile = \"p", "\\u0022", "null",
        ])
        .prop_map(str::to_owned),
        3 => prop::char::range(' ', '~').prop_map(String::from),
        1 => any::<char>().prop_map(String::from),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn config() -> impl Strategy<Value = BackendConfig> {
    let names = (text(), text(), text());
    let more = (option::of(text()), option::of(text()), option::of(text()));
    (names, more, any::<bool>(), any::<bool>()).prop_map(
        |((bucket, key, region), (kms_key_id, acl, prefix), encrypt, use_lockfile)| BackendConfig {
            bucket,
            key,
            region,
            kms_key_id,
            encrypt,
            acl,
            use_lockfile,
            workspace_key_prefix: prefix,
        },
    )
}

fn format() -> impl Strategy<Value = BackendFormat> {
    prop_oneof![Just(BackendFormat::Tf), Just(BackendFormat::TfBackend)]
}

/// Exactly the attributes that `config` asks for.
fn expected(config: &BackendConfig) -> BTreeMap<String, Value> {
    let string = |text: &String| Value::String(text.clone());
    let mut map = BTreeMap::from([
        ("bucket".to_owned(), string(&config.bucket)),
        ("key".to_owned(), string(&config.key)),
        ("region".to_owned(), string(&config.region)),
    ]);
    if let Some(key) = config.kms_key_id.as_ref().filter(|key| !key.is_empty()) {
        map.insert("kms_key_id".to_owned(), string(key));
    }
    if config.encrypt || map.contains_key("kms_key_id") {
        map.insert("encrypt".to_owned(), Value::Bool(true));
    }
    if let Some(acl) = config.acl.as_ref().filter(|acl| !acl.is_empty()) {
        map.insert("acl".to_owned(), string(acl));
    }
    if config.use_lockfile {
        map.insert("use_lockfile".to_owned(), Value::Bool(true));
    }
    if let Some(prefix) = config.workspace_key_prefix.as_ref().filter(|prefix| *prefix != "env:") {
        map.insert("workspace_key_prefix".to_owned(), string(prefix));
    }
    map
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        config in config(),
        format in format(),
        ambient in option::of(text()),
    ) {
        let text = render(&config, format);
        prop_assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
        prop_assert!(text.chars().all(|c| c == '\n' || !is_unprintable(c)));
        let parsed = parse(&text, format.into()).unwrap();
        prop_assert!(is_rendered(&text, &parsed, format));
        prop_assert_eq!(&parsed.attributes, &expected(&config));
        let backends = match format {
            BackendFormat::Tf => vec!["s3".to_owned()],
            BackendFormat::TfBackend => vec![],
        };
        prop_assert_eq!(&parsed.backends, &backends);
        prop_assert!(parsed.others.is_empty() && parsed.other_content.is_empty());
        prop_assert_eq!(differences(&config, &parsed, ambient.as_deref()), vec![]);
        // One line per attribute, and two around each block: nothing was broken up.
        let around = backends.len() * 4;
        prop_assert_eq!(text.lines().count(), parsed.attributes.len() + around);

        // What was read, written again, is the same file.
        let read = |name: &str| match parsed.attributes.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        let again = BackendConfig {
            bucket: read("bucket").unwrap(),
            key: read("key").unwrap(),
            region: read("region").unwrap(),
            kms_key_id: read("kms_key_id"),
            encrypt: parsed.attributes.contains_key("encrypt"),
            acl: read("acl"),
            use_lockfile: parsed.attributes.contains_key("use_lockfile"),
            workspace_key_prefix: read("workspace_key_prefix"),
        };
        prop_assert_eq!(render(&again, format), text);
    }

    #[test]
    fn another_value_is_a_difference(
        config in config(),
        field in 0..4,
        value in text(),
        format in format(),
    ) {
        let parsed = parse(&render(&config, format), format.into()).unwrap();
        let mut other = config.clone();
        match field {
            0 => other.bucket = value,
            1 => other.key = value,
            2 => other.region = value,
            _ => other.kms_key_id = Some(value),
        }
        let same = expected(&config) == expected(&other);
        prop_assert_eq!(differences(&other, &parsed, None).is_empty(), same);
        // And the other way round, where a setting is gone; `encrypt = true` alone may stay.
        let parsed = parse(&render(&other, format), format.into()).unwrap();
        prop_assert_eq!(differences(&config, &parsed, None).is_empty(), same);
    }

    #[test]
    fn a_difference_is_one_short_line(name in "[a-z_]{1,4}", wanted in config(), found in text()) {
        let value = Value::String(found.repeat(60));
        for attribute in [name.as_str(), "key", "kms_key_id", "region", "acl", "encrypt"] {
            let parsed = ParsedBackend {
                syntax: Syntax::Native,
                backends: vec!["s3".to_owned(), found.clone()],
                attributes: BTreeMap::from([(attribute.to_owned(), value.clone())]),
                others: vec!["cloud".to_owned()],
                other_content: vec![found.repeat(60)],
                required_versions: Vec::new(),
                comments: true,
            };
            let found = differences(&wanted, &parsed, None);
            for difference in found.into_iter().chain(extras(&wanted, &parsed)) {
                let line = difference.to_string();
                prop_assert!(!line.chars().any(is_unprintable), "{line:?}");
                prop_assert!(line.chars().count() < 700, "{line:?}");
            }
        }
    }

    #[test]
    fn never_panics_and_never_echoes(found in text(), before in text(), wanted in config()) {
        for syntax in [Syntax::Native, Syntax::Attributes, Syntax::Json] {
            for text in [
                format!("{before}{found}"),
                format!("bucket = \"{found}\"\n{before}"),
                format!("terraform {{\nbackend \"{before}\" {{\nkey = <<E\n{found}\nE\n}}\n}}"),
            ] {
                match parse(&text, syntax) {
                    Ok(parsed) => drop(differences(&wanted, &parsed, None)),
                    Err(error) => {
                        let ParseError::Syntax { what, line, column } = error else {
                            return Err(TestCaseError::fail("too long"));
                        };
                        prop_assert_eq!(
                            error.to_string(),
                            format!("not valid {what} at line {line}, column {column}")
                        );
                    }
                }
            }
        }
    }
}
