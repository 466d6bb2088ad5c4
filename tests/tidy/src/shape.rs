//! Size and shape of files, functions and names (STYLE.md, rules 1, 2 and 8).

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::Finding;
use crate::source::Source;

/// What is wrong with the shape of `source`.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let first = source.text.lines().next().unwrap_or_default();
    if first.trim_start_matches("//!").trim().is_empty() || !first.starts_with("//! ") {
        findings.push(Finding::new(&source.path, 1, FIRST_LINE));
    }
    let file_lines = source.text.lines().count();
    if file_lines >= FILE_LINES_FAIL {
        let sentence = format!(
            "the file has {file_lines} lines and {FILE_LINES_FAIL} fail, because nobody reads so \
             much at once: split it along its nouns"
        );
        findings.push(Finding::new(&source.path, FILE_LINES_FAIL, sentence));
    }
    let mut visitor = Shapes { path: &source.path, findings, in_trait_impl: Dictated::No };
    visitor.visit_file(&source.syntax);
    visitor.findings
}

/// Whether a trait elsewhere dictates the signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dictated {
    Yes,
    No,
}

struct Shapes<'s> {
    path: &'s str,
    findings: Vec<Finding>,
    in_trait_impl: Dictated,
}

impl Shapes<'_> {
    fn find(&mut self, line: usize, sentence: String) {
        self.findings.push(Finding::new(self.path, line, sentence));
    }

    fn length(&mut self, name: &syn::Ident, signature: &syn::Signature, block: &syn::Block) {
        let start = signature.span().start().line;
        let length = block.span().end().line + 1 - start;
        if length >= FN_LINES_FAIL {
            self.find(
                start,
                format!(
                    "`{name}` has {length} lines and {FN_LINES_FAIL} fail, because a reader loses \
                     the thread: move each step into a function with a name"
                ),
            );
        }
    }

    fn parameters(&mut self, signature: &syn::Signature) {
        let count = signature.inputs.len();
        if count > PARAMETERS_MAX {
            self.find(
                signature.span().start().line,
                format!(
                    "`{}` takes {count} parameters and more than {PARAMETERS_MAX} fail, because \
                     callers mix them up: give them a struct",
                    signature.ident
                ),
            );
        }
    }

    fn bools(&mut self, signature: &syn::Signature) {
        let bools = signature.inputs.iter().filter(|input| is_bool(input));
        for input in bools {
            self.find(
                input.span().start().line,
                format!(
                    "`{}` takes a `bool`, and a bare `true` at a call tells nothing: make it an \
                     enum of two named cases",
                    signature.ident
                ),
            );
        }
    }

    fn name(&mut self, name: &syn::Ident) {
        let text = name.to_string();
        let word = words(&text).into_iter().find(|word| FORBIDDEN_WORDS.contains(&word.as_str()));
        if let Some(word) = word {
            self.find(
                name.span().start().line,
                format!(
                    "`{text}` is named a `{word}`, which says that it does something but not \
                     what it is: name the noun (STYLE.md, rule 2)"
                ),
            );
        }
    }
}

impl<'ast> Visit<'ast> for Shapes<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.length(&item.sig.ident, &item.sig, &item.block);
        self.parameters(&item.sig);
        if is_public(&item.vis) {
            self.bools(&item.sig);
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.length(&item.sig.ident, &item.sig, &item.block);
        if self.in_trait_impl == Dictated::No {
            self.parameters(&item.sig);
            if is_public(&item.vis) {
                self.bools(&item.sig);
            }
        }
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.parameters(&item.sig);
        self.bools(&item.sig);
        if let Some(block) = &item.default {
            self.length(&item.sig.ident, &item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let outer = self.in_trait_impl;
        self.in_trait_impl = if item.trait_.is_some() { Dictated::Yes } else { Dictated::No };
        visit::visit_item_impl(self, item);
        self.in_trait_impl = outer;
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.name(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.name(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.name(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.name(&item.ident);
        visit::visit_item_type(self, item);
    }
}

const fn is_public(visibility: &syn::Visibility) -> bool {
    !matches!(visibility, syn::Visibility::Inherited)
}

fn is_bool(input: &syn::FnArg) -> bool {
    match input {
        syn::FnArg::Typed(typed) => match &*typed.ty {
            syn::Type::Path(path) => path.path.is_ident("bool"),
            _ => false,
        },
        syn::FnArg::Receiver(_) => false,
    }
}

/// The words of a name in camel case, a plural `s` taken off.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            Some(word) if !letter.is_uppercase() => word.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    words.iter().map(|word| word.trim_end_matches('s').to_owned()).collect()
}

const FIRST_LINE: &str = "the first line is not `//! …`: begin with one sentence on what the file \
                          is and what it is not, so that a newcomer knows whether to read on";

/// More than a screen: the eye cannot hold it. 40 is where a reviewer starts to ask.
const FN_LINES_FAIL: usize = 70;

/// Past this a file has two subjects. 400 is where a reviewer starts to ask.
const FILE_LINES_FAIL: usize = 600;

/// With the receiver, as clippy counts (clippy.toml names the same number).
const PARAMETERS_MAX: usize = 4;

const FORBIDDEN_WORDS: [&str; 5] = ["Manager", "Helper", "Util", "Handler", "Processor"];
