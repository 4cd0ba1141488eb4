//! Changes attributes of a backend block where it stands: every other byte of the file stays, but
//! for the blanks before `=` where `terraform fmt` had aligned them.

use std::ops::Range;

use hcl_edit::Span;
use hcl_edit::structure::{Attribute, Block, Body, Structure};

use super::parse::{self, BOM, is_settings};
use super::render::literal;
use super::{Syntax, Value, json};

/// Sets attributes of the first backend block (in [`Syntax::Attributes`], of the file), and removes
/// those that are given no value.
///
/// Returns the new text, or `None` where it would not say just that.
pub fn edit(text: &str, syntax: Syntax, changes: &[(&str, Option<Value>)]) -> Option<String> {
    let mut wanted = parse::parse(text, syntax).ok()?;
    let bare = text.strip_prefix(BOM).unwrap_or(text);
    let edited = match syntax {
        Syntax::Json => json::edit(bare, changes)?,
        _ => native(bare, syntax, changes)?,
    };
    let edited = format!("{}{edited}", &text[..text.len() - bare.len()]);
    for (name, value) in changes {
        match value {
            Some(value) => wanted.attributes.insert((*name).to_owned(), value.clone()),
            None => wanted.attributes.remove(*name),
        };
    }
    let mut said = parse::parse(&edited, syntax).ok()?;
    said.comments = wanted.comments;
    (said == wanted).then_some(edited)
}

/// Where attributes of a block can be put.
struct Place<'a> {
    text: &'a str,
    /// What is between its braces; the whole text, where there are none.
    inside: Range<usize>,
    /// The indentation of what is in it.
    indent: String,
    /// It is written on one line, braces and all.
    one_line: bool,
}

/// An attribute of one line, and where its parts are in the text.
struct Line<'a> {
    name: &'a str,
    /// From the name to the end of the value.
    span: Range<usize>,
    /// Between the name and `=`.
    gap: Range<usize>,
    /// The number of its line.
    line: usize,
}

fn native(text: &str, syntax: Syntax, changes: &[(&str, Option<Value>)]) -> Option<String> {
    let body = parse::body(text).ok()?;
    let (inner, place) = match syntax {
        Syntax::Attributes => (&body, Place::whole(text)),
        _ => {
            let block = backend(&body)?;
            (&block.body, Place::of(text, block)?)
        }
    };
    let attributes: Vec<&Attribute> = inner.iter().filter_map(Structure::as_attribute).collect();
    let mut splices: Vec<(Range<usize>, String)> = Vec::new();
    let mut new: Vec<(&str, String)> = Vec::new();
    for (name, value) in changes {
        let found = attributes.iter().find(|attribute| attribute.key.as_str() == *name);
        match (found, value) {
            (Some(found), Some(value)) => splices.push((found.value.span()?, literal(value)?)),
            (Some(found), None) => splices.push((place.whole_line(found.span()?), String::new())),
            (None, Some(value)) => new.push((name, literal(value)?)),
            (None, None) => {}
        }
    }
    let lines: Vec<Line<'_>> = attributes.iter().filter_map(|it| place.line(it)).collect();
    let removed =
        |line: &Line<'_>| changes.iter().any(|(name, value)| value.is_none() && *name == line.name);
    if place.one_line && !new.is_empty() {
        splices.push(place.open_up(&new));
    } else {
        // Runs of lines that follow each other, which `terraform fmt` aligns.
        let runs = lines.chunk_by(|one, next| one.line + 1 == next.line);
        let last = lines.last().map(|line| line.line);
        for run in runs {
            let grows = run.last().map(|line| line.line) == last && !new.is_empty();
            let stay: Vec<&Line<'_>> = run.iter().filter(|line| !removed(line)).collect();
            if !grows && stay.len() == run.len() {
                continue;
            }
            let longest = |lines: &[&Line<'_>]| lines.iter().map(|it| it.name.len()).max();
            let all: Vec<&Line<'_>> = run.iter().collect();
            let before = longest(&all).unwrap_or_default() + 1;
            let aligned = run.iter().all(|line| line.name.len() + line.gap.len() == before);
            let added = new.iter().filter(|_| grows).map(|(name, _)| name.len()).max();
            let width = longest(&stay).max(added).unwrap_or_default() + 1;
            if aligned {
                let padded = stay.iter().map(|it| (it.gap.clone(), blanks(width - it.name.len())));
                splices.extend(padded.filter(|(gap, blanks)| gap.len() != blanks.len()));
            }
            if grows {
                let width = if aligned { width } else { 0 };
                let anchor = run.last().map_or(place.inside.end, |line| line.span.end);
                splices.push(place.add(anchor, &new, width));
            }
        }
        if lines.is_empty() && !new.is_empty() {
            let width = new.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
            splices.push(place.add(place.inside.start, &new, width));
        }
    }
    splices.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for (range, with) in splices {
        out.push_str(text.get(at..range.start)?);
        out.push_str(&with);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// The first backend block.
fn backend(body: &Body) -> Option<&Block> {
    let settings = body.blocks().filter(|block| is_settings(block));
    settings.flat_map(|block| block.body.blocks()).find(|block| block.has_ident("backend"))
}

fn blanks(count: usize) -> String {
    " ".repeat(count)
}

impl<'a> Place<'a> {
    fn whole(text: &'a str) -> Self {
        Self { text, inside: 0..text.len(), indent: String::new(), one_line: false }
    }

    fn of(text: &'a str, block: &Block) -> Option<Self> {
        let span = block.span()?;
        let head = block.labels.last().and_then(Span::span).map_or(span.start, |label| label.end);
        let open = head + text.get(head..span.end)?.find('{')?;
        let inside = open + 1..span.end.checked_sub(1)?;
        let line = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let outer: String = text[line..].chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
        let step = if outer.contains('\t') { "\t" } else { "  " };
        let of_first = block.body.iter().find_map(|structure| {
            let start = structure.span()?.start;
            let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
            let before = &text[line..start];
            before.bytes().all(|b| matches!(b, b' ' | b'\t')).then(|| before.to_owned())
        });
        let one_line = !text[inside.clone()].contains('\n');
        let indent = of_first.unwrap_or_else(|| format!("{outer}{step}"));
        Some(Self { text, inside, indent, one_line })
    }

    fn newline(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }

    /// The attribute, where it is written on one line.
    fn line<'b>(&self, attribute: &'b Attribute) -> Option<Line<'b>> {
        let (value, name) = (attribute.value.span()?, attribute.key.as_str());
        let start = attribute.span()?.start;
        let after = start + name.len();
        let gap = after..after + self.text.get(after..value.start)?.find('=')?;
        let blank = self.text[gap.clone()].bytes().all(|b| b == b' ');
        let one_line = !self.text[start..value.end].contains('\n');
        let line = self.text[..start].matches('\n').count();
        (blank && one_line).then_some(Line { name, span: start..value.end, gap, line })
    }

    /// An attribute with its line, but for what else is on that.
    fn whole_line(&self, span: Range<usize>) -> Range<usize> {
        let start = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[span.end..];
        let end = rest.find('\n').map_or(self.text.len(), |at| span.end + at + 1);
        let alone = self.text[start..span.start].trim().is_empty()
            && self.text[span.end..end].trim().is_empty();
        if alone { start..end } else { span }
    }

    /// New lines after the one that `anchor` is on.
    fn add(&self, anchor: usize, new: &[(&str, String)], width: usize) -> (Range<usize>, String) {
        let newline = self.newline();
        let rest = &self.text[anchor..];
        let (at, begin) = match rest.find('\n') {
            Some(end) => (anchor + end + 1, ""),
            None if self.text.is_empty() => (0, ""),
            None => (self.text.len(), newline),
        };
        let mut lines = begin.to_owned();
        for (name, value) in new {
            let width = width.max(name.len() + 1);
            lines.push_str(&format!("{}{name:width$}= {value}{newline}", self.indent));
        }
        (at..at, lines)
    }

    /// A block of one line becomes one of several.
    fn open_up(&self, new: &[(&str, String)]) -> (Range<usize>, String) {
        let newline = self.newline();
        let line = self.text[..self.inside.start].rfind('\n').map_or(0, |at| at + 1);
        let outer = self.text[line..].chars().take_while(|c| matches!(c, ' ' | '\t'));
        let outer: String = outer.collect();
        let step = if outer.contains('\t') { "\t" } else { "  " };
        let indent = format!("{outer}{step}");
        let inside = self.text[self.inside.clone()].trim();
        let mut lines = newline.to_owned();
        let width = new.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        // HCL takes one attribute at most on such a line.
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let parts = inside.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let width = parts.map_or(width, |(name, _)| width.max(name.len()));
        match parts.filter(|(name, _)| is_name(name)) {
            Some((name, value)) => {
                lines.push_str(&format!("{indent}{name:width$} = {value}{newline}"));
            }
            None if inside.is_empty() => {}
            None => lines.push_str(&format!("{indent}{inside}{newline}")),
        }
        for (name, value) in new {
            lines.push_str(&format!("{indent}{name:width$} = {value}{newline}"));
        }
        lines.push_str(&outer);
        (self.inside.clone(), lines)
    }
}
