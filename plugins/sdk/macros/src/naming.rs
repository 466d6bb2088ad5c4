//! The names under which serde reads fields and variants. Knows serde's rules and nothing else.

/// A rule of `#[serde(rename_all = "…")]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `onetwo`
    Lower,
    /// `ONETWO`
    Upper,
    /// `OneTwo`
    Pascal,
    /// `oneTwo`
    Camel,
    /// `one_two`
    Snake,
    /// `ONE_TWO`
    ScreamingSnake,
    /// `one-two`
    Kebab,
    /// `ONE-TWO`
    ScreamingKebab,
}

impl Rule {
    /// The rule that serde calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "lowercase" => Self::Lower,
            "UPPERCASE" => Self::Upper,
            "PascalCase" => Self::Pascal,
            "camelCase" => Self::Camel,
            "snake_case" => Self::Snake,
            "SCREAMING_SNAKE_CASE" => Self::ScreamingSnake,
            "kebab-case" => Self::Kebab,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            _ => return None,
        })
    }

    /// The name of a field, which Rust writes as `one_two`.
    pub fn field(self, name: &str) -> String {
        match self {
            Self::Lower | Self::Snake => name.to_owned(),
            Self::Upper | Self::ScreamingSnake => name.to_uppercase(),
            Self::Pascal => name.split('_').map(capitalised).collect(),
            Self::Camel => uncapitalised(&Self::Pascal.field(name)),
            Self::Kebab => name.replace('_', "-"),
            Self::ScreamingKebab => name.to_uppercase().replace('_', "-"),
        }
    }

    /// The name of a variant, which Rust writes as `OneTwo`.
    pub fn variant(self, name: &str) -> String {
        match self {
            Self::Pascal => name.to_owned(),
            Self::Lower => name.to_lowercase(),
            Self::Upper => name.to_uppercase(),
            Self::Camel => uncapitalised(name),
            Self::Snake | Self::ScreamingSnake | Self::Kebab | Self::ScreamingKebab => {
                self.field(&snake(name))
            }
        }
    }
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn uncapitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn names_are_those_that_serde_reads() {
        for (rule, field, variant) in [
            ("lowercase", "one_two", "onetwo"),
            ("UPPERCASE", "ONE_TWO", "ONETWO"),
            ("PascalCase", "OneTwo", "OneTwo"),
            ("camelCase", "oneTwo", "oneTwo"),
            ("snake_case", "one_two", "one_two"),
            ("SCREAMING_SNAKE_CASE", "ONE_TWO", "ONE_TWO"),
            ("kebab-case", "one-two", "one-two"),
            ("SCREAMING-KEBAB-CASE", "ONE-TWO", "ONE-TWO"),
        ] {
            let found = Rule::named(rule).unwrap();
            assert_eq!(found.field("one_two"), field, "{rule}");
            assert_eq!(found.variant("OneTwo"), variant, "{rule}");
        }
        assert_eq!(Rule::named("Train-Case"), None);
    }
}
