//! One Rust file, parsed: its syntax, its tokens with their lines, and which lines are tests.
//! Comments and string literals are no tokens, so that text about code is not taken for code.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::Finding;

/// A parsed Rust file.
pub struct Source {
    /// From the root of the project.
    pub path: String,
    /// As it stands.
    pub text: String,
    /// Its syntax tree.
    pub syntax: syn::File,
    /// Its tokens, also those inside macro calls.
    pub tokens: Vec<Token>,
    test_lines: Vec<RangeInclusive<usize>>,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier, one punctuation character, a bracket, or empty for a literal.
    pub text: String,
    /// Its line, counted from 1.
    pub line: usize,
}

impl Source {
    /// Parses `text`, which stands at `path`.
    pub fn parse(path: &str, text: &str) -> Result<Self, Finding> {
        let error = |e: &dyn std::fmt::Display| {
            Finding::new(path, 1, format!("this is not Rust that can be checked: {e}"))
        };
        let syntax = syn::parse_file(text).map_err(|e| error(&e))?;
        let stream: TokenStream = text.parse().map_err(|e| error(&e))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut modules = TestModules(Vec::new());
        modules.visit_file(&syntax);
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            syntax,
            tokens,
            test_lines: modules.0,
        })
    }

    /// Whether `line` is test code: in a `#[cfg(test)]` module or in a crate of tests.
    pub fn is_test(&self, line: usize) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// The lines at which this run of tokens begins, each with the token before it. References
    /// before it are skipped: what matters is what stands before `&Permit`.
    pub fn runs<'s>(&'s self, wanted: &'s [&str]) -> impl Iterator<Item = (usize, &'s str)> {
        self.tokens.windows(wanted.len().max(1)).enumerate().filter_map(move |(at, window)| {
            let same = window.iter().zip(wanted).all(|(token, text)| token.text == *text);
            let line = window.first()?.line;
            same.then(|| (line, self.before(at)))
        })
    }

    fn before(&self, at: usize) -> &str {
        let earlier = self.tokens.get(..at).unwrap_or_default();
        earlier.iter().rev().find(|token| token.text != "&").map_or("", |token| &token.text)
    }
}

struct TestModules(Vec<RangeInclusive<usize>>);

impl<'ast> Visit<'ast> for TestModules {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.attrs.iter().any(is_cfg_test) {
            self.0.push(lines(module));
        }
        visit::visit_item_mod(self, module);
    }
}

/// The lines that a piece of syntax covers.
pub fn lines(syntax: &impl Spanned) -> RangeInclusive<usize> {
    syntax.span().start().line..=syntax.span().end().line
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test")
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(ident) => tokens.push(Token { text: ident.to_string(), line }),
            TokenTree::Punct(punct) => tokens.push(Token { text: punct.to_string(), line }),
            TokenTree::Literal(_) => tokens.push(Token { text: String::new(), line }),
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                tokens.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), tokens);
                let line = group.span_close().start().line;
                tokens.push(Token { text: close.to_owned(), line });
            }
        }
    }
}

const fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}
