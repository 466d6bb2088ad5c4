//! What JSON a Rust type is read from. Looks at the type as it is written: a derive macro sees no
//! more.

use syn::spanned::Spanned;
use syn::{Error, GenericArgument, Path, PathArguments, Result, Type};

/// A field's type.
pub struct Declared<'t> {
    /// Whether it is an `Option`.
    pub optional: bool,
    /// What is in it.
    pub shape: Shape<'t>,
}

/// The shape of a value.
pub enum Shape<'t> {
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// An integer, with the range of its type where JSON can tell it exactly.
    Integer {
        /// The least value.
        least: Option<i128>,
        /// The greatest value.
        most: Option<i128>,
    },
    /// Any number.
    Number,
    /// A list.
    List(Box<Shape<'t>>),
    /// An object with any keys.
    Map(Box<Shape<'t>>),
    /// A type with a schema of its own.
    Named(&'t Type),
}

impl<'t> Declared<'t> {
    /// What `declared` is read from.
    pub fn parse(declared: &'t Type) -> Result<Self> {
        match wrapped(declared, "Option") {
            Some(inner) => Ok(Self { optional: true, shape: Shape::parse(inner)? }),
            None => Ok(Self { optional: false, shape: Shape::parse(declared)? }),
        }
    }
}

impl<'t> Shape<'t> {
    fn parse(declared: &'t Type) -> Result<Self> {
        let path = path(declared).ok_or_else(|| {
            Error::new(
                declared.span(),
                "`Schema` knows `String`, `bool`, numbers, `Vec`, maps and types with a `Schema`",
            )
        })?;
        if let Some(inner) = wrapped(declared, "Vec") {
            return Ok(Self::List(Box::new(Self::parse(inner)?)));
        }
        if let Some(inner) = wrapped(declared, "Box") {
            return Self::parse(inner);
        }
        let name = last(path);
        match name.as_str() {
            "Option" => {
                Err(Error::new(declared.span(), "an item of a list or a map cannot be left out"))
            }
            "BTreeMap" | "HashMap" => map(declared, path),
            "String" => Ok(Self::Text),
            "bool" => Ok(Self::Flag),
            "f32" | "f64" => Ok(Self::Number),
            _ => Ok(integer(&name).unwrap_or(Self::Named(declared))),
        }
    }

    /// The shape that limits are about: in a list, its items.
    pub fn innermost(&self) -> &Self {
        match self {
            Self::List(items) => items.innermost(),
            other => other,
        }
    }
}

fn integer<'t>(name: &str) -> Option<Shape<'t>> {
    // Numbers beyond 2^53 are not exact in every reader of JSON, so their limits are not told.
    let (least, most) = match name {
        "u8" => (Some(0), Some(i128::from(u8::MAX))),
        "u16" => (Some(0), Some(i128::from(u16::MAX))),
        "u32" => (Some(0), Some(i128::from(u32::MAX))),
        "u64" | "usize" => (Some(0), None),
        "i8" => (Some(i128::from(i8::MIN)), Some(i128::from(i8::MAX))),
        "i16" => (Some(i128::from(i16::MIN)), Some(i128::from(i16::MAX))),
        "i32" => (Some(i128::from(i32::MIN)), Some(i128::from(i32::MAX))),
        "i64" | "isize" => (None, None),
        _ => return None,
    };
    Some(Shape::Integer { least, most })
}

fn map<'t>(declared: &'t Type, path: &'t Path) -> Result<Shape<'t>> {
    match arguments(path).as_slice() {
        [key, value] if self::path(key).is_some_and(|key| last(key) == "String") => {
            Ok(Shape::Map(Box::new(Shape::parse(value)?)))
        }
        _ => Err(Error::new(declared.span(), "a map needs `String` keys: JSON has no others")),
    }
}

/// The `T` of `Name<T>`.
fn wrapped<'t>(declared: &'t Type, name: &str) -> Option<&'t Type> {
    let path = path(declared).filter(|path| last(path) == name)?;
    match arguments(path).as_slice() {
        [inner] => Some(inner),
        _ => None,
    }
}

fn path(declared: &Type) -> Option<&Path> {
    match declared {
        Type::Path(path) if path.qself.is_none() => Some(&path.path),
        Type::Group(group) => path(&group.elem),
        Type::Paren(paren) => path(&paren.elem),
        _ => None,
    }
}

fn last(path: &Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn arguments(path: &Path) -> Vec<&Type> {
    match path.segments.last().map(|segment| &segment.arguments) {
        Some(PathArguments::AngleBracketed(list)) => list
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(argument) => Some(argument),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
