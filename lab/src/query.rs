//! The AWS Query protocol of STS and IAM: a form in, XML out.

use std::collections::BTreeMap;

use crate::world::Failure;

/// The two services that speak it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Sts,
    Iam,
}

impl Service {
    /// Told apart by the API version, which every request names.
    pub(crate) fn of(form: &Form) -> Self {
        if form.get("Version") == Some("2010-05-08") { Self::Iam } else { Self::Sts }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Iam => "iam",
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
        }
    }

    /// An operation's answer around its result.
    pub(crate) fn answer(self, operation: &str, result: &str) -> String {
        format!(
            "<{operation}Response xmlns=\"{}\"><{operation}Result>{result}</{operation}Result>\
             <ResponseMetadata><RequestId>lab</RequestId></ResponseMetadata></{operation}Response>",
            self.namespace()
        )
    }

    /// An error's answer.
    pub(crate) fn error(self, code: &str, message: &str) -> String {
        format!(
            "<ErrorResponse xmlns=\"{}\"><Error><Type>Sender</Type><Code>{}</Code>\
             <Message>{}</Message></Error><RequestId>lab</RequestId></ErrorResponse>",
            self.namespace(),
            xml(code),
            xml(message)
        )
    }
}

/// AWS: "Common error types" of STS and IAM has its own words for what KMS says of a bad
/// signature.
pub(crate) fn in_own_words(failure: Failure) -> Failure {
    let code = match failure.code {
        "UnrecognizedClientException" => "InvalidClientTokenId",
        "InvalidSignatureException" => "SignatureDoesNotMatch",
        "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
        _ => return failure,
    };
    Failure { code, status: 403, ..failure }
}

/// A request's parameters.
#[derive(Debug, Default)]
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    pub(crate) fn of(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    /// A parameter; an empty one counts as none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| {
            invalid(format!(
                "1 validation error detected: Value at '{name}' failed to satisfy constraint: \
                 Member must not be null"
            ))
        })
    }

    /// A list: `name.member.1`, `name.member.2`, …
    pub(crate) fn members(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|at| self.get(&format!("{name}.member.{at}"))).collect()
    }

    /// Fails on a parameter that the lab does not carry out: to pass over one that AWS obeys
    /// would make the lab the laxer of the two.
    pub(crate) fn without(&self, unknown: &[&str]) -> Result<(), Failure> {
        let hit = self.0.keys().find(|key| {
            unknown.iter().any(|name| {
                key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        });
        hit.map_or(Ok(()), |key| Err(invalid(format!("the lab does not know {key}"))))
    }
}

/// AWS: an input outside its constraints.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new("ValidationError", 400, message)
}

/// Escaped for XML.
pub(crate) fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Without the percent signs of a URL or form.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits: String = bytes.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let form = Form::of(b"Action=A&Policy=%7B%22a%22%3A+1%7D&L.member.1=x&L.member.2=%2B&E=");
        assert_eq!(form.get("Policy"), Some("{\"a\": 1}"));
        assert_eq!(form.members("L"), ["x", "+"]);
        assert!(form.required("E").is_err());
        assert!(form.without(&["L"]).is_err() && form.without(&["Pol"]).is_ok());
    }
}
