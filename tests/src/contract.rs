//! Compares two versions of the plugin contract: what a released plugin was built against must
//! still be there, unchanged. Reads WIT files; runs nothing.

use std::collections::BTreeMap;
use std::path::Path;

use wit_parser::{
    Function, Handle, InterfaceId, Resolve, Type, TypeDefKind, TypeId, TypeOwner, WorldItem,
    WorldKey,
};

/// One version of the world that plugins are built against.
pub struct Contract {
    /// By the interface's name without its version.
    imports: BTreeMap<String, Interface>,
    exports: BTreeMap<String, Interface>,
}

struct Interface {
    /// Major, minor, patch.
    version: (u64, u64, u64),
    /// Each type and function with its whole signature.
    items: BTreeMap<String, String>,
}

impl Contract {
    /// Reads the contract from a folder with one folder a package.
    pub fn read(folder: &Path) -> Self {
        let mut resolve = Resolve::default();
        let mut left: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        left.sort();
        // Packages name each other, and come in the order in which they can be resolved.
        while !left.is_empty() {
            let before = left.len();
            let mut told = String::new();
            left.retain(|package| {
                let mut tried = resolve.clone();
                match tried.push_dir(package) {
                    Ok(_) => {
                        resolve = tried;
                        false
                    }
                    Err(error) => {
                        told = format!("{}: {error:#}", package.display());
                        true
                    }
                }
            });
            assert!(left.len() < before, "{told}");
        }
        Self::of(&resolve)
    }

    fn of(resolve: &Resolve) -> Self {
        let (_, world) =
            resolve.worlds.iter().find(|(_, world)| world.name == "plugin").expect("the world");
        let interfaces = |items: &mut dyn Iterator<Item = (&WorldKey, &WorldItem)>| {
            items
                .map(|(_, item)| match item {
                    WorldItem::Interface { id, .. } => interface(resolve, *id),
                    WorldItem::Function(_) | WorldItem::Type { .. } => {
                        panic!("the world has interfaces only")
                    }
                })
                .collect()
        };
        Self {
            imports: interfaces(&mut world.imports.iter()),
            exports: interfaces(&mut world.exports.iter()),
        }
    }

    /// Why plugins built against `released` would not run where this one is spoken.
    pub fn breaks(&self, released: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, old) in &released.imports {
            match self.imports.get(name) {
                None => found.push(format!("interface `{name}` is gone")),
                Some(new) => found.extend(breaks(name, old, new)),
            }
        }
        for (name, old) in &released.exports {
            match self.exports.get(name) {
                None => found.push(format!("export `{name}` is gone")),
                Some(new) => {
                    found.extend(breaks(name, old, new));
                    // The host calls all of it, and a released plugin has no more than it had.
                    let added = new.items.keys().filter(|item| !old.items.contains_key(*item));
                    found.extend(added.map(|item| format!("`{name}` demands a new `{item}`")));
                }
            }
        }
        let demanded = self.exports.keys().filter(|name| !released.exports.contains_key(*name));
        found.extend(demanded.map(|name| format!("a new export `{name}` is demanded")));
        found
    }
}

fn breaks(name: &str, old: &Interface, new: &Interface) -> Vec<String> {
    let mut found = Vec::new();
    let track = |version: (u64, u64, u64)| (version.0, version.1);
    if track(old.version) != track(new.version) || new.version < old.version {
        found.push(format!("`{name}` went from {:?} to {:?}", old.version, new.version));
    }
    if old.items.iter().ne(new.items.iter()) && old.version == new.version {
        found.push(format!("`{name}` changed under the same version {:?}", old.version));
    }
    for (item, signature) in &old.items {
        match new.items.get(item) {
            None => found.push(format!("`{name}` has no `{item}` any more")),
            Some(now) if now != signature => {
                found.push(format!("`{name}`: `{item}` was `{signature}` and is `{now}`"));
            }
            Some(_) => {}
        }
    }
    found
}

fn interface(resolve: &Resolve, id: InterfaceId) -> (String, Interface) {
    let found = &resolve.interfaces[id];
    let package = &resolve.packages[found.package.expect("a package")].name;
    let version = package.version.as_ref().map_or((0, 0, 0), |v| (v.major, v.minor, v.patch));
    let types = found.types.iter().map(|(name, id)| (format!("type {name}"), define(resolve, *id)));
    let functions = found.functions.iter().map(|(name, f)| (name.clone(), signature(resolve, f)));
    (name_of(resolve, id), Interface { version, items: types.chain(functions).collect() })
}

fn name_of(resolve: &Resolve, id: InterfaceId) -> String {
    let found = &resolve.interfaces[id];
    let package = &resolve.packages[found.package.expect("a package")].name;
    let name = found.name.as_deref().expect("a name");
    format!("{}:{}/{name}", package.namespace, package.name)
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let parameters: Vec<_> = function
        .params
        .iter()
        .map(|parameter| format!("{}: {}", parameter.name, mention(resolve, parameter.ty)))
        .collect();
    let result = optional(resolve, function.result);
    // Its name tells a method, a constructor and a static function apart.
    format!("({}) -> {result}", parameters.join(", "))
}

fn optional(resolve: &Resolve, ty: Option<Type>) -> String {
    ty.map_or_else(|| "_".to_owned(), |ty| mention(resolve, ty))
}

/// A type where it is used: by its name, if it has one.
fn mention(resolve: &Resolve, ty: Type) -> String {
    let Type::Id(id) = ty else { return format!("{ty:?}").to_lowercase() };
    let found = &resolve.types[id];
    match (&found.kind, &found.name, found.owner) {
        // A `use` gives another interface's type a second name.
        (TypeDefKind::Type(of), _, _) => mention(resolve, *of),
        (_, Some(name), TypeOwner::Interface(owner)) => {
            format!("{}.{name}", name_of(resolve, owner))
        }
        _ => define(resolve, id),
    }
}

/// What a type is made of.
fn define(resolve: &Resolve, id: TypeId) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            let field = |f: &wit_parser::Field| format!("{}: {}", f.name, mention(resolve, f.ty));
            format!("record {{{}}}", list(fields.map(field).collect()))
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter();
            let case = |c: &wit_parser::Case| format!("{}({})", c.name, optional(resolve, c.ty));
            format!("variant {{{}}}", list(cases.map(case).collect()))
        }
        TypeDefKind::Enum(found) => {
            format!("enum {{{}}}", list(found.cases.iter().map(|c| c.name.clone()).collect()))
        }
        TypeDefKind::Flags(found) => {
            format!("flags {{{}}}", list(found.flags.iter().map(|f| f.name.clone()).collect()))
        }
        TypeDefKind::Tuple(tuple) => {
            let types = tuple.types.iter().map(|ty| mention(resolve, *ty));
            format!("tuple<{}>", list(types.collect()))
        }
        TypeDefKind::Resource => "resource".to_owned(),
        TypeDefKind::Handle(Handle::Own(of)) => format!("own<{}>", mention(resolve, Type::Id(*of))),
        TypeDefKind::Handle(Handle::Borrow(of)) => {
            format!("borrow<{}>", mention(resolve, Type::Id(*of)))
        }
        TypeDefKind::Option(of) => format!("option<{}>", mention(resolve, *of)),
        TypeDefKind::List(of) => format!("list<{}>", mention(resolve, *of)),
        TypeDefKind::Result(found) => {
            format!("result<{}, {}>", optional(resolve, found.ok), optional(resolve, found.err))
        }
        TypeDefKind::Type(of) => mention(resolve, *of),
        other => panic!("the contract uses no {other:?}"),
    }
}
