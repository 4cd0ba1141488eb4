//! Makes texts from outside harmless in Markdown, HTML and Mermaid.

use crate::names::is_deceptive;

/// Text in a paragraph or a table cell: shown as it is, never as markup.
///
/// Everything but letters, digits and a few signs becomes a numeric character
/// reference, which CommonMark never takes for the beginning of markup.
pub fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_deceptive(c) => out.push('\u{fffd}'),
            c if c.is_alphanumeric() || matches!(c, ' ' | ',' | ';' | '/' | '=' | '%' | '?') => {
                out.push(c)
            }
            // Not at the beginning of anything that they are used in here.
            '-' | '.' | ':' if !out.is_empty() => out.push(c),
            c => out.push_str(&format!("&#{};", u32::from(c))),
        }
    }
    out
}

/// Text in a fixed-width font.
pub fn code(value: &str) -> String {
    format!("<code>{}</code>", text(value))
}

/// A block of lines, fenced so that nothing in it can end the fence.
pub fn block(value: &str) -> String {
    let longest = value.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let body: String =
        value.chars().map(|c| if is_deceptive(c) && c != '\n' { '\u{fffd}' } else { c }).collect();
    format!("{fence}text\n{body}\n{fence}\n")
}

/// A label in a Mermaid diagram: only signs that mean nothing there.
pub fn label(value: &str) -> String {
    value
        .chars()
        .map(|c| if c.is_alphanumeric() || " -_./:,".contains(c) { c } else { ' ' })
        .take(120)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_is_shown_and_not_obeyed() {
        assert_eq!(text("a|b"), "a&#124;b");
        assert_eq!(text("<img src=x>"), "&#60;img src=x&#62;");
        assert_eq!(text("- x"), "&#45; x");
        assert_eq!(text("a\n# b"), "a &#35; b");
        assert_eq!(block("a```b"), "````text\na```b\n````\n");
        assert_eq!(label("a\"]; click"), "a    click");
    }

    proptest! {
        #[test]
        fn nothing_special_is_left(value in "(?s).{0,60}") {
            let text = text(&value);
            prop_assert!(!text.contains(['<', '>', '|', '`', '*', '_', '[', ']', '\n', '\\', '"', '@']));
            let block = block(&value);
            let fence: String = block.chars().take_while(|c| *c == '`').collect();
            let inside = &block[fence.len()..block.len() - fence.len() - 1];
            prop_assert!(!inside.contains(&fence));
        }
    }
}
