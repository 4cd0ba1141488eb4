//! Edits in place: what is asked for is set, and nothing else of the file is another.

use super::*;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-44cd-96ef-1234567890ab";

fn set() -> Vec<(&'static str, Option<Value>)> {
    let key = Value::String(ARN.to_owned());
    vec![("encrypt", Some(Value::Bool(true))), ("kms_key_id", Some(key))]
}

fn edited(text: &str) -> String {
    edit(text, Syntax::Native, &set()).unwrap()
}

#[test]
fn lines_are_added_after_the_last_attribute_and_aligned_as_they_were() {
    let before = "# top\nterraform {\n  required_version = \">= 1.9\"\n\n  backend \"s3\" {\n    bucket = \"b\" # ours\n    key    = \"k\"\n    region = \"r\"\n\n    assume_role = {\n      role_arn = \"x\"\n    }\n  }\n}\n\nprovider \"aws\" {\n}\n";
    let after = format!(
        "# top\nterraform {{\n  required_version = \">= 1.9\"\n\n  backend \"s3\" {{\n    bucket     = \"b\" # ours\n    key        = \"k\"\n    region     = \"r\"\n    encrypt    = true\n    kms_key_id = \"{ARN}\"\n\n    assume_role = {{\n      role_arn = \"x\"\n    }}\n  }}\n}}\n\nprovider \"aws\" {{\n}}\n"
    );
    assert_eq!(edited(before), after);
    // And back again.
    let removed = [("encrypt", None), ("kms_key_id", None)];
    assert_eq!(edit(&after, Syntax::Native, &removed).as_deref(), Some(before));
}

#[test]
fn what_was_not_aligned_is_left_so() {
    let before = "terraform {\n\tbackend s3 {\n\t\tbucket=\"b\"\n\t\tkey  = \"k\"\n\t}\n}\n";
    let after = format!(
        "terraform {{\n\tbackend s3 {{\n\t\tbucket=\"b\"\n\t\tkey  = \"k\"\n\t\tencrypt = true\n\t\tkms_key_id = \"{ARN}\"\n\t}}\n}}\n"
    );
    assert_eq!(edited(before), after);
}

#[test]
fn values_are_set_where_they_stand() {
    let before = "terraform {\n  backend \"s3\" {\n    kms_key_id = \"other\" # the platform's\n    bucket     = \"b\"\n    encrypt    = false\n  }\n}\n";
    let after = before.replace("\"other\"", &format!("\"{ARN}\"")).replace("false", "true");
    assert_eq!(edited(before), after);
    let null =
        "terraform {\n  backend \"s3\" {\n    kms_key_id = null\n    encrypt    = null\n  }\n}";
    let after = null.replacen("null", &format!("\"{ARN}\""), 1).replacen("null", "true", 1);
    assert_eq!(edited(null), after);
    // A comment stays, though its attribute goes.
    let gone = edit(before, Syntax::Native, &[("kms_key_id", None)]).unwrap();
    assert!(gone.contains("\n     # the platform's\n    bucket"), "{gone}");
}

#[test]
fn blocks_of_one_line_are_opened_up() {
    for (before, inside) in [
        ("terraform {\n  backend \"s3\" {}\n}\n", ""),
        ("terraform {\n  backend \"s3\" { key = \"k\" }\n}\n", "    key        = \"k\"\n"),
        ("terraform {\n  backend \"s3\" {\n  }\n}\n", ""),
    ] {
        let after = format!(
            "terraform {{\n  backend \"s3\" {{\n{inside}    encrypt    = true\n    kms_key_id = \"{ARN}\"\n  }}\n}}\n"
        );
        assert_eq!(edited(before), after);
    }
}

#[test]
fn a_byte_order_mark_and_the_line_ends_stay() {
    let before = "\u{feff}terraform {\r\n  backend \"s3\" {\r\n    key = \"k\"\r\n  }\r\n}\r\n";
    let after = format!(
        "\u{feff}terraform {{\r\n  backend \"s3\" {{\r\n    key        = \"k\"\r\n    encrypt    = true\r\n    kms_key_id = \"{ARN}\"\r\n  }}\r\n}}\r\n"
    );
    assert_eq!(edited(before), after);
}

#[test]
fn bare_attributes_are_edited_alike() {
    let after = edit("bucket = \"b\"", Syntax::Attributes, &set()).unwrap();
    assert_eq!(after, format!("bucket     = \"b\"\nencrypt    = true\nkms_key_id = \"{ARN}\"\n"));
}

#[test]
fn json_keeps_its_layout() {
    let before = "{\n  \"//\": \"ours\",\n  \"terraform\": {\n    \"backend\": {\n      \"s3\": {\n        \"bucket\": \"b\",\n        \"key\":    \"k\"\n      }\n    }\n  }\n}\n";
    let after = edit(before, Syntax::Json, &set()).unwrap();
    assert_eq!(
        after,
        before.replace(
            "\"k\"\n",
            &format!("\"k\",\n        \"encrypt\": true,\n        \"kms_key_id\": \"{ARN}\"\n")
        )
    );
    let removed = [("encrypt", None), ("kms_key_id", None)];
    assert_eq!(edit(&after, Syntax::Json, &removed).as_deref(), Some(before));
    assert_eq!(edit("{\"terraform\": {}}", Syntax::Json, &set()), None);
}

#[test]
fn strict_json_is_read_as_terraform_reads_it() {
    let read = |text: &str| parse(text, Syntax::Json).unwrap();
    let parsed = read(
        r#"[{"terraform": {"backend": [{"s3": {"key": "a${b}", "encrypt": true, "x": null, "n": 1.0, "secret_key": "hunter2"}}]}},
            {"terraform": {"cloud": {}, "required_version": ">= 1"}, "provider": {}}]"#,
    );
    assert_eq!((parsed.backends, parsed.others), (vec!["s3".to_owned()], vec!["cloud".to_owned()]));
    assert_eq!(parsed.other_content, ["required_version", "provider"]);
    assert_eq!(parsed.attributes.get("key"), Some(&Value::Other("an expression")));
    assert_eq!(parsed.attributes.get("secret_key"), Some(&Value::Hidden));
    assert!(!parsed.attributes.contains_key("x"), "null is unset");
    let two = read(r#"{"terraform": {"backend": {"s3": [{}, {}]}}}"#);
    assert_eq!(two.backends.len(), 2);
    let twice = read(r#"{"terraform": {"backend": {"s3": {}}, "backend": {"s3": {}}}}"#);
    assert_eq!(twice.backends.len(), 2);
    for broken in ["{", "{\"a\": 1,}", "// x\n{}", "{'a': 1}", &"[".repeat(100_000)] {
        assert!(parse(broken, Syntax::Json).is_err());
    }
}

#[test]
fn the_block_that_counts_is_the_one_that_terraform_takes() {
    let block = "terraform {\n  backend \"s3\" {\n  }\n}\n";
    let none = "terraform {\n  required_version = \"1\"\n}\n";
    let json = r#"{"terraform": {"backend": {"s3": {}}}}"#;
    let found = |files: &[(&str, &str)]| {
        let files: Vec<_> =
            files.iter().map(|(name, text)| ConfigFile::new(name, text.as_bytes())).collect();
        folder::deciding(&files)
            .map(|found| found.iter().map(|file| file.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(found(&[("a.tf", none), ("b.tf", "x = {}\n")]), Ok(vec![]));
    assert_eq!(found(&[("a.tf", none), ("b.tf", block)]), Ok(vec!["b.tf".into()]));
    assert_eq!(found(&[("a.tf.json", json)]), Ok(vec!["a.tf.json".into()]));
    // The last override file wins.
    let overridden = [("a.tf", block), ("a_override.tf", block), ("override.tf", block)];
    assert_eq!(found(&overridden), Ok(vec!["override.tf".into()]));
    assert_eq!(
        found(&[("a.tf", block), ("a_override.tf.json", json)]),
        Ok(vec!["a_override.tf.json".into()])
    );
    // OpenTofu reads its own files in place of Terraform's.
    assert_eq!(
        found(&[("a.tf", block), ("a.tofu", block)]),
        Ok(vec!["a.tf".into(), "a.tofu".into()])
    );
    assert_eq!(found(&[("a.tf", none), ("b.tofu", block)]), Ok(vec!["b.tofu".into()]));
    for unclear in [
        &[("a.tf", block), ("b.tf", block)][..],
        &[("a.tf", block), ("b.tofu", block)],
        &[("a.tf", block), ("a.tofu", none)],
        &[("a.tf", block), ("b.tf", "terraform {\n  cloud {\n  }\n}\n")],
        &[("a.tf", "terraform {\n  backend \"s3\" {\n")],
        &[("a.tf", block), ("override.tf", &block.repeat(2))],
    ] {
        assert!(found(unclear).is_err(), "{unclear:?}");
    }
    // What cannot be parsed and says nothing of a backend is no hindrance.
    assert_eq!(found(&[("a.tf", "resource \"x\" {")]), Ok(vec![]));
    for (name, is) in [
        ("a.tf", true),
        ("a.tofu.json", true),
        (".a.tf", false),
        ("a.tf~", false),
        ("#a.tf#", false),
        ("a.tfvars", false),
    ] {
        assert_eq!(is_configuration(name), is, "{name}");
    }
}
