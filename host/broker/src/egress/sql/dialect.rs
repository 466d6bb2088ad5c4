//! The SQL dialects that the door knows. Holds their names and limits, quotes nothing.

use std::fmt::{Display, Formatter, Result};

use serde::Deserialize;

/// An SQL dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

impl Dialect {
    /// The dialect of an address's scheme, and the rest of the address.
    pub fn of_address(text: &str) -> Option<(Self, &str)> {
        SCHEMES.iter().find_map(|(scheme, dialect)| Some((*dialect, text.strip_prefix(scheme)?)))
    }

    /// The port where such a server listens unless the address says another.
    pub const fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mysql => 3306,
        }
    }

    /// An address to copy from.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Postgres => "postgres://db.internal:5432/database?sslmode=verify-full",
            Self::Mysql => "mysql://db.internal:3306/database?sslmode=verify-full",
        }
    }
}

impl Display for Dialect {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
        })
    }
}

const SCHEMES: [(&str, Dialect); 4] = [
    ("postgres://", Dialect::Postgres),
    ("postgresql://", Dialect::Postgres),
    ("mysql://", Dialect::Mysql),
    ("mariadb://", Dialect::Mysql),
];
