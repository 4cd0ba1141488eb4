use super::*;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-44cd-96ef-1234567890ab";

fn config() -> BackendConfig {
    BackendConfig {
        bucket: "cabal-tf-backend".to_owned(),
        key: "prod/infra".to_owned(),
        region: "us-east-1".to_owned(),
        kms_key_id: None,
        encrypt: false,
        acl: None,
        use_lockfile: false,
        workspace_key_prefix: None,
    }
}

fn keyed() -> BackendConfig {
    BackendConfig { kms_key_id: Some(ARN.to_owned()), ..config() }
}

/// A `.tf` file around a backend block's content.
fn file(attributes: &str) -> String {
    format!("terraform {{\n  backend \"s3\" {{\n{attributes}\n  }}\n}}\n")
}

const BASE: &str = "bucket = \"cabal-tf-backend\"\nkey = \"prod/infra\"\nregion = \"us-east-1\"\n";

fn read(text: &str) -> ParsedBackend {
    parse(text, Syntax::Native).unwrap()
}

/// The differences, one line each.
fn lines(wanted: &BackendConfig, text: &str) -> Vec<String> {
    differences(wanted, &read(text), None).iter().map(ToString::to_string).collect()
}

/// What replacing the file would drop, one line each.
fn dropped(wanted: &BackendConfig, text: &str) -> Vec<String> {
    extras(wanted, &read(text)).iter().map(ToString::to_string).collect()
}

#[test]
fn renders_what_the_script_writes_with_a_key() {
    let expected = format!(
        r#"terraform {{
  backend "s3" {{
    bucket     = "cabal-tf-backend"
    key        = "prod/infra"
    region     = "us-east-1"
    encrypt    = true
    kms_key_id = "{ARN}"
  }}
}}
"#
    );
    assert_eq!(render(&keyed(), BackendFormat::Tf), expected);
}

#[test]
fn renders_what_the_script_writes_without_a_key() {
    let expected = r#"terraform {
  backend "s3" {
    bucket = "cabal-tf-backend"
    key    = "prod/infra"
    region = ""
  }
}
"#;
    let config = BackendConfig { region: String::new(), ..config() };
    assert_eq!(render(&config, BackendFormat::Tf), expected);
    // An empty value counts as not given.
    let empty =
        BackendConfig { kms_key_id: Some(String::new()), acl: Some(String::new()), ..config };
    assert_eq!(render(&empty, BackendFormat::Tf), expected);
}

#[test]
fn renders_acl_and_lock_and_bare_attributes() {
    let config = BackendConfig {
        acl: Some("bucket-owner-full-control".to_owned()),
        use_lockfile: true,
        ..keyed()
    };
    let expected = format!(
        r#"bucket       = "cabal-tf-backend"
key          = "prod/infra"
region       = "us-east-1"
encrypt      = true
kms_key_id   = "{ARN}"
acl          = "bucket-owner-full-control"
use_lockfile = true
"#
    );
    assert_eq!(render(&config, BackendFormat::TfBackend), expected);
    let nested: String = expected.lines().map(|line| format!("    {line}\n")).collect();
    assert_eq!(render(&config, BackendFormat::Tf), file(nested.trim_end_matches('\n')));
}

#[test]
fn escapes_what_would_leave_the_string() {
    let rendered = |key: &str| {
        let config = BackendConfig { key: key.to_owned(), ..config() };
        let text = render(&config, BackendFormat::TfBackend);
        text.lines().nth(1).unwrap().strip_prefix("key    = ").unwrap().to_owned()
    };
    for (value, literal) in [
        ("a\"\\", r#""a\"\\""#),
        ("\n\r\t", r#""\n\r\t""#),
        ("${x}%{y}", r#""$${x}%%{y}""#),
        ("$${x} $%{ %${", r#""$$${x} $%%{ %$${""#),
        ("$ % {} $", r#""$ % {} $""#),
        ("\0\u{7}\u{7f}\u{85}", r#""\u0000\u0007\u007f\u0085""#),
        ("\u{202e}\u{feff}\u{e0041}", r#""\u202e\ufeff\U000e0041""#),
        ("é😀", r#""é😀""#),
    ] {
        assert_eq!(rendered(value), literal);
    }
}

#[test]
fn means_the_same_whatever_the_layout() {
    let dressed = format!(
        "\u{feff}# a comment\r\nterraform {{\r\n  backend s3 {{ // here\r\n    kms_key_id=\
         \"{ARN}\" \
         /* and */ # there\r\n    region = (\"us-east-1\")\r\n    encrypt = \"true\"\r\n    \
         key = \"${{\"prod/infra\"}}\"\r\n\r\n    bucket = \"cabal\\u002dtf-backend\"\r\n    \
         use_lockfile = false\r\n    acl = \"\"\r\n    profile = null\r\n  }}\r\n}}"
    );
    assert_eq!(lines(&keyed(), &dressed), [""; 0]);
    let heredoc =
        file("bucket = \"cabal-tf-backend\"\nregion = \"us-east-1\"\nkey = <<-E\n  a$${b}\n  E");
    let wanted = BackendConfig { key: "a${b}\n".to_owned(), ..config() };
    assert_eq!(lines(&wanted, &heredoc), [""; 0]);
    let numeric = file("bucket = true\nregion = 1.50\nkey = 1000.0");
    let wanted = BackendConfig {
        bucket: "true".to_owned(),
        region: "1.5".to_owned(),
        key: "1000".to_owned(),
        ..config()
    };
    assert_eq!(lines(&wanted, &numeric), [""; 0]);
}

#[test]
fn empty_region_is_the_ambient_one() {
    let with = |region: &str| BackendConfig { region: region.to_owned(), ..config() };
    let same = |wanted: &str, found: &str, ambient| {
        let text = file(&format!("bucket = \"cabal-tf-backend\"\nkey = \"prod/infra\"\n{found}"));
        differences(&with(wanted), &read(&text), ambient).is_empty()
    };
    assert!(same("", "", None));
    assert!(same("", "region = \"\"", None));
    assert!(same("", "region = \"\"", Some("")));
    assert!(same("eu-west-1", "", Some("eu-west-1")));
    assert!(same("eu-west-1", "region = \"\"", Some("eu-west-1")));
    assert!(same("", "region = \"eu-west-1\"", Some("eu-west-1")));
    assert!(!same("", "region = \"eu-west-1\"", None));
    assert!(!same("eu-west-1", "", None));
    assert!(!same("eu-west-1", "", Some("us-east-1")));
    assert!(!same("", "region = \"eu-west-1\"", Some("us-east-1")));
    assert!(!same("", "region = var.region", None));
}

#[test]
fn says_what_encryption_settings_do() {
    let check = |wanted: &BackendConfig, attributes: &str, expected: &[&str]| {
        assert_eq!(lines(wanted, &file(&format!("{BASE}{attributes}"))), expected, "{attributes}");
    };
    let (plain, keyed) = (config(), keyed());
    let short = BackendConfig { kms_key_id: Some("K".to_owned()), ..config() };

    check(&plain, "encrypt = false", &[]);
    check(&plain, "kms_key_id = \"K\"", &[]);
    check(&plain, "encrypt = \"0\"\nkms_key_id = \"K\"", &[]);
    // SSE-S3, as before, and named.
    check(&plain, "encrypt = true", &[]);
    let named = BackendConfig { encrypt: true, ..config() };
    check(&named, "encrypt = true", &[]);
    check(
        &named,
        "",
        &[
            "encrypt: the file has none, wanted true; the next write would send no header for its encryption",
        ],
    );
    check(
        &plain,
        "encrypt = true\nkms_key_id = \"K\"",
        &["kms_key_id: the file says \"K\", wanted none; the next write would be under this key"],
    );
    check(
        &plain,
        "kms_key_id = \"\"",
        &["kms_key_id: the file says \"\", wanted none; Terraform refuses an empty kms_key_id"],
    );
    check(
        &plain,
        "encrypt = var.on\nkms_key_id = \"K\"",
        &[
            "encrypt: the file says an expression, wanted none",
            "kms_key_id: the file says \"K\", wanted none",
        ],
    );

    check(&keyed, &format!("encrypt = true\nkms_key_id = \"{ARN}\""), &[]);
    check(
        &short,
        "encrypt = true",
        &["kms_key_id: the file has none, wanted \"K\"; encrypt = true without kms_key_id: the \
           next write would be AES256, outside the key"],
    );
    check(
        &short,
        "kms_key_id = \"K\"",
        &["encrypt: the file has none, wanted true; kms_key_id without encrypt = true is not \
           sent: the next write would be as the bucket's default has it"],
    );
    check(
        &short,
        "encrypt = true\nkms_key_id = \"L\"",
        &["kms_key_id: the file says \"L\", wanted \"K\"; the next write would be under another \
           key"],
    );
    check(&short, "encrypt = 1\nkms_key_id = \"K\"", &["encrypt: the file says 1, wanted true"]);
    check(
        &short,
        "",
        &[
            "encrypt: the file has none, wanted true; the next write would be as the bucket's \
             default has it",
            "kms_key_id: the file has none, wanted \"K\"",
        ],
    );
}

#[test]
fn reports_what_overwriting_would_drop() {
    let text = file(&format!(
        "{BASE}acl = \"private\"\nuse_lockfile = true\nprofile = \"ops\"\ndynamodb_table = \
         \"locks\"\nendpoints = {{ s3 = \"https://u:hunter2@h\" }}\nassume_role {{\nrole_arn = \
         \"hunter2\"\n}}\nskip_s3_checksum = true\nmax_retries = 5\nallowed_account_ids = [\"1\"]"
    ));
    assert_eq!(lines(&config(), &text), [""; 0], "extras are no difference");
    assert_eq!(
        dropped(&config(), &text),
        [
            "acl: the file says \"private\"; overwriting would drop it",
            "allowed_account_ids: the file says a list; overwriting would drop this guard against \
             the wrong account",
            "assume_role: the file says a block; overwriting would change whom Terraform acts as",
            "dynamodb_table: the file says \"locks\"; overwriting would drop the lock table",
            "endpoints: the file says an object; overwriting would drop it",
            "max_retries: the file says 5; overwriting would drop it",
            "profile: the file says \"ops\"; overwriting would change whom Terraform acts as",
            "skip_s3_checksum: the file says true; overwriting would drop it",
            "use_lockfile: the file says true; overwriting would drop the lock",
        ]
    );
    let wanted = BackendConfig { acl: Some("private".to_owned()), use_lockfile: true, ..config() };
    assert_eq!(
        lines(&wanted, &file(BASE)),
        [
            "acl: the file has none, wanted \"private\"; the next write would not carry this ACL",
            "use_lockfile: the file has none, wanted true; Terraform would take no lock in S3",
        ]
    );
}

#[test]
fn keeps_no_secrets() {
    for attribute in [
        "access_key",
        "secret_key",
        "token",
        "sse_customer_key",
        "password",
        "http_proxy",
        "external_id",
        "unheard_of",
        "SECRET_KEY",
        "endpoint",
    ] {
        for literal in ["\"https://u@hunter2\"", "<<E\nu@hunter2\nE", "(\"@${\"hunter2\"}\")"] {
            let parsed = read(&file(&format!("{BASE}{attribute} = {literal}")));
            assert!(!format!("{parsed:?}").contains("hunter2"), "{attribute}");
            let found = extras(&config(), &parsed);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].kind, DifferenceKind::Extra);
            assert!(!found[0].to_string().contains("hunter2"));
        }
    }
    let text = file(&format!("{BASE}secret_key = \"hunter2\""));
    assert_eq!(
        dropped(&config(), &text),
        ["secret_key: the file says (not shown); overwriting would change whom Terraform acts as"]
    );
    let broken = file(&format!("{BASE}secret_key = \"hunter2\n"));
    let error = parse(&broken, Syntax::Native).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn expressions_are_never_the_same() {
    for expression in [
        "var.key",
        "\"prod/${var.name}\"",
        "lower(\"prod/infra\")",
        "true ? \"prod/infra\" : \"\"",
        "[\"prod/infra\"]",
        "{ a = \"prod/infra\" }",
        "<<E\n${var.key}\nE",
    ] {
        let text = file(&format!(
            "bucket = \"cabal-tf-backend\"\nregion = \"us-east-1\"\nkey = {expression}"
        ));
        let found = differences(&config(), &read(&text), None);
        assert_eq!(found.len(), 1, "{expression}");
        assert_eq!((found[0].kind, found[0].attribute.as_str()), (DifferenceKind::Changed, "key"));
        assert!(
            found[0]
                .to_string()
                .ends_with("wanted \"prod/infra\"; Terraform would look for the state elsewhere")
        );
    }
}

#[test]
fn sees_the_whole_file() {
    let whole = |text: &str| lines(&config(), text);
    let none = "backend: the file has none, wanted \"s3\"; Terraform would keep the state in a \
                local file";
    assert_eq!(whole(""), [none]);
    assert_eq!(whole("\u{feff}# nothing\r\n"), [none]);
    assert_eq!(whole("terraform {\n}\n"), [none]);
    assert_eq!(
        whole("terraform {\n  backend \"local\" {\n    path = \"x\"\n  }\n}\n"),
        ["backend: the file says \"local\", wanted \"s3\"; Terraform would look for the state \
          elsewhere"]
    );
    assert_eq!(
        whole("terraform {\n  cloud {\n    organization = \"x\"\n  }\n}\n"),
        [none, "cloud: the file says a block, wanted none; Terraform refuses it beside a backend"]
    );
    let two = "backend blocks: the file says 2, wanted 1; Terraform refuses more than one";
    let block = format!("backend \"s3\" {{\n{BASE}}}\n");
    assert_eq!(whole(&format!("terraform {{\n{block}{block}}}\n")), [two]);
    assert_eq!(whole(&format!("terraform {{\n{block}}}\nterraform {{\n{block}}}\n")), [two]);
    assert_eq!(
        dropped(
            &config(),
            &format!(
                "terraform {{\nrequired_version = \"1\"\n{block}}}\nprovider \"aws\" {{\n}}\nprovider \
             \"x\" {{\n}}\nbucket = \"b\"\nterraform \"x\" {{\n{block}}}\n"
            )
        ),
        ["other content: the file says \"required_version, provider, bucket, terraform\"; \
          overwriting the file would drop it"]
    );
    for labels in ["", "\"s3\" \"x\""] {
        let text = format!("terraform {{\nbackend {labels} {{\n{BASE}}}\n}}\n");
        assert_eq!(differences(&config(), &read(&text), None)[0].kind, DifferenceKind::File);
    }
}

#[test]
fn bare_attributes_stand_by_themselves() {
    let bare = parse(BASE, Syntax::Attributes).unwrap();
    assert_eq!(differences(&config(), &bare, None), []);
    let empty = parse("", Syntax::Attributes).unwrap();
    let found = differences(&config(), &empty, None);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|difference| difference.kind == DifferenceKind::Missing));
    let block = parse(&file(BASE), Syntax::Attributes).unwrap();
    let found = differences(&config(), &block, None);
    assert_eq!(found.len(), 3);
    assert_eq!(extras(&config(), &block)[0].attribute, "terraform");
}

#[test]
fn refuses_what_is_not_hcl() {
    let at = |text: &str| parse(text, Syntax::Native).map_err(|error| error.to_string());
    let error = |line, column| Err(format!("not valid HCL at line {line}, column {column}"));
    assert_eq!(at("terraform {\n  backend \"s3\" {\n    key = \n  }\n}\n"), error(3, 11));
    assert_eq!(at("{\n  \"terraform\": {}\n}\n"), error(1, 1));
    assert_eq!(at("\u{feff}[]"), error(1, 1));
    assert_eq!(at("<<<<<<< HEAD\n"), error(1, 1));
    assert!(at("terraform { backend \"s3\" {} }\n").is_err());
    assert!(at(&file("key = \"a\"\nkey = \"b\"")).is_err());
    assert!(at(&file("key = \"\\a\"")).is_err());
    assert!(at("terraform {\n\u{feff}\n}\n").is_err());
    assert!(at("\0\u{1}").is_err());
    for deep in ["[", "{", "{a=", "(", "\"${", "-", "!", "a {\n", "a(", "a?", "1+"] {
        assert!(at(&file(&format!("key = {}", deep.repeat(5000)))).is_err(), "{deep}");
    }
    let long = "#".repeat(256 * 1024 + 1);
    assert_eq!(at(&long), Err("longer than 262144 bytes".to_owned()));
}
