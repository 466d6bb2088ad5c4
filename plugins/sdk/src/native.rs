//! What `bindings.rs` is on other targets than WebAssembly: the same names over a scripted host, so
//! that a plugin's own tests run `issue` and `revoke` natively. Written by hand after `wit/`; the
//! compiler holds both to the SDK's use of them. No part of a component.

#![allow(missing_docs, reason = "the documentation stands in wit/")]

pub mod claviger {
    //! The imported packages.

    pub mod types {
        //! `claviger:types`.

        pub mod errors {
            //! Errors.
            use std::fmt;

            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum ErrorKind {
                InvalidConfig,
                InvalidInput,
                Denied,
                NotFound,
                Conflict,
                RateLimited,
                Unavailable,
                Timeout,
                Unsupported,
                Other,
            }

            #[derive(Clone, Debug)]
            pub struct Error {
                pub kind: ErrorKind,
                pub code: Option<String>,
                pub message: String,
                pub request_sent: bool,
                pub retry_after_ms: Option<u64>,
            }

            impl fmt::Display for Error {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, "{self:?}")
                }
            }

            impl std::error::Error for Error {}
        }

        pub mod secrets {
            //! Secrets: a label instead of a value, so that no test can come to rest on one.
            use super::errors::{Error, ErrorKind};
            use crate::testing::world;

            #[derive(Debug)]
            pub struct Secret(pub(crate) String);

            pub fn generate(bits: u32) -> Result<Secret, Error> {
                if !(128..=512).contains(&bits) {
                    let message = "a secret has 128 to 512 bits";
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
                Ok(Secret(world::next_secret("generated")))
            }
        }
    }

    pub mod sql {
        //! `claviger:sql`.

        #[expect(clippy::module_inception, reason = "the package and its interface share a name")]
        pub mod sql {
            //! Statements as text, sessions over scripts.
            use std::cell::RefCell;

            use super::super::types::errors::Error;
            use super::super::types::secrets::Secret;
            use crate::testing::world;

            #[derive(Debug, Default)]
            pub struct Statement(RefCell<String>);

            impl Statement {
                pub fn new() -> Self {
                    Self::default()
                }

                pub fn text(&self, sql: &str) {
                    self.0.borrow_mut().push_str(sql);
                }

                pub fn ident(&self, name: &str) {
                    self.text(&format!("\"{}\"", name.replace('"', "\"\"")));
                }

                pub fn literal(&self, value: &str) {
                    self.text(&format!("'{}'", value.replace('\'', "''")));
                }

                pub fn scram_sha256(&self, value: &Secret, iterations: u32) {
                    self.text(&format!("'<scram-sha-256 {iterations} of {}>'", value.0));
                }

                pub fn mysql_native(&self, value: &Secret) {
                    self.text(&format!("'<mysql-native of {}>'", value.0));
                }

                pub(crate) fn shown(&self) -> String {
                    self.0.borrow().clone()
                }
            }

            #[derive(Debug)]
            pub struct Session {
                connection: String,
            }

            impl Session {
                pub fn open(connection: &str) -> Result<Self, Error> {
                    world::open_sql(connection)?;
                    Ok(Self { connection: connection.to_owned() })
                }

                pub fn host(&self) -> String {
                    format!("{}.example", self.connection)
                }

                pub fn port(&self) -> u16 {
                    5432
                }

                pub fn database(&self) -> String {
                    "example".to_owned()
                }

                pub fn execute(&self, statement: &Statement) -> Result<u64, Error> {
                    let rows = world::run_sql(&self.connection, statement.shown())?;
                    Ok(rows.len() as u64)
                }

                pub fn transaction(&self, statements: &[&Statement]) -> Result<(), Error> {
                    for statement in statements {
                        world::run_sql(&self.connection, statement.shown())?;
                    }
                    Ok(())
                }

                pub fn query(&self, statement: &Statement) -> Result<Rows, Error> {
                    let rows = world::run_sql(&self.connection, statement.shown())?;
                    Ok(Rows(RefCell::new(rows)))
                }
            }

            #[derive(Debug)]
            pub struct Rows(RefCell<Vec<Vec<Option<String>>>>);

            impl Rows {
                pub fn next_page(&self, rows_max: u32) -> Vec<Vec<Option<String>>> {
                    let mut rows = self.0.borrow_mut();
                    let page = rows.len().min(rows_max as usize);
                    rows.drain(..page).collect()
                }
            }
        }
    }

    pub mod egress {
        //! `claviger:egress`.

        pub mod http {
            //! Requests as the script sees them, responses as the plugin may.
            use std::cell::RefCell;

            use super::super::types::errors::{Error, ErrorKind};
            use super::super::types::secrets::Secret;
            use crate::testing::{HttpReply, HttpRequest, world};

            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Encoding {
                Raw,
                Json,
                Form,
                Xml,
                Base64,
            }

            pub fn address(connection: &str) -> Result<String, Error> {
                world::open_http(connection)?;
                Ok(format!("https://{connection}.example"))
            }

            #[derive(Debug)]
            pub struct Request(RefCell<HttpRequest>);

            impl Request {
                pub fn new(connection: &str, method: &str) -> Self {
                    Self(RefCell::new(HttpRequest::new(connection, method)))
                }

                pub fn path(&self, text: &str) {
                    self.0.borrow_mut().path.push_str(text);
                }

                pub fn segment(&self, value: &str) {
                    self.path(&world::percent_encoded(value));
                }

                pub fn query(&self, name: &str, value: &str) {
                    self.0.borrow_mut().query.push((name.to_owned(), value.to_owned()));
                }

                pub fn header(&self, name: &str, value: &str) {
                    self.0.borrow_mut().headers.push((name.to_owned(), value.to_owned()));
                }

                pub fn claims(&self, claims: &str) {
                    self.0.borrow_mut().claims = serde_json::from_str(claims).unwrap_or_default();
                }

                pub fn text(&self, text: &str) {
                    self.0.borrow_mut().body.push_str(text);
                }

                pub fn value(&self, value: &str, encoding: Encoding) {
                    self.text(&world::encoded(value, encoding));
                }

                pub fn secret(&self, value: &Secret, encoding: Encoding) {
                    self.value(&value.0, encoding);
                }

                pub fn send(&self) -> Result<Response, Error> {
                    world::send(&self.0.borrow()).map(Response)
                }
            }

            #[derive(Debug)]
            pub struct Response(HttpReply);

            impl Response {
                pub fn status(&self) -> u16 {
                    self.0.status
                }

                pub fn header(&self, name: &str) -> Option<String> {
                    let header = self.0.headers.iter().find(|(known, _)| known == name);
                    header.map(|(_, value)| value.clone())
                }

                pub fn body(&self) -> String {
                    self.0.hidden_body()
                }

                pub fn read(&self, location: &str) -> Result<Option<String>, Error> {
                    self.0.scalar(location)
                }

                pub fn take_secret(&self, location: &str) -> Result<Secret, Error> {
                    match self.0.scalar(location)? {
                        Some(_) => Ok(Secret(world::next_secret(location))),
                        None => {
                            let message = format!("the response has nothing at `{location}`");
                            Err(Error::new(ErrorKind::NotFound, message).after_sending())
                        }
                    }
                }
            }
        }
    }

    pub mod jwt {
        //! `claviger:jwt`.

        #[expect(clippy::module_inception, reason = "the package and its interface share a name")]
        pub mod jwt {
            //! A label for what would be signed.
            use super::super::types::errors::Error;
            use super::super::types::secrets::Secret;
            use crate::testing::world;

            pub fn issuer(connection: &str) -> Result<String, Error> {
                Ok(format!("https://{connection}.example"))
            }

            pub fn sign(
                connection: &str,
                audience: &str,
                claims: &str,
                expires_at: u64,
            ) -> Result<Secret, Error> {
                let of =
                    format!("token of {connection} for {audience} until {expires_at}: {claims}");
                Ok(Secret(world::next_secret(&of)))
            }
        }
    }

    pub mod log {
        //! `claviger:log`.

        #[expect(clippy::module_inception, reason = "the package and its interface share a name")]
        pub mod log {
            //! Lines for the test to look at.
            use crate::testing::world;

            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Level {
                Debug,
                Info,
                Warn,
                Error,
            }

            pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
                let fields = fields.iter().map(|(name, value)| format!(" {name}={value}"));
                world::log(format!("{level:?}: {message}{}", fields.collect::<String>()));
            }
        }
    }

    pub mod provider {
        //! `claviger:provider`.

        pub mod calls {
            //! Requests as plain data, a lease that keeps what it is told.
            use std::cell::RefCell;

            use super::super::types::errors::{Error, ErrorKind};
            use super::super::types::secrets::Secret;
            use crate::testing::Minted;

            #[derive(Debug)]
            pub struct IssueRequest(());

            #[derive(Debug)]
            pub struct RevokeRequest(());

            macro_rules! no_getters {
                ($request:ty: $($getter:ident -> $what:ty),*) => {
                    impl $request {
                        $(pub fn $getter(&self) -> $what {
                            // Nothing makes one: natively, tests make `Issue` and `Revoke`.
                            Default::default()
                        })*
                    }
                };
            }

            no_getters!(IssueRequest: intent -> String, session -> String, role -> String,
                requester -> String, scope -> String, settings -> String, parameters -> String,
                now -> u64, expires_at -> u64);
            no_getters!(RevokeRequest: intent -> String, scope -> String, settings -> String,
                lease_handle -> Option<String>, now -> u64);

            #[derive(Debug)]
            pub struct Lease {
                pub(crate) expires_at: u64,
                pub(crate) minted: RefCell<Minted>,
            }

            impl Lease {
                pub fn set_field(&self, name: &str, value: &str) -> Result<(), Error> {
                    self.minted.borrow_mut().fields.insert(name.to_owned(), value.to_owned());
                    Ok(())
                }

                pub fn set_secret(&self, name: &str, value: &Secret) -> Result<(), Error> {
                    self.minted.borrow_mut().secrets.insert(name.to_owned(), value.0.clone());
                    Ok(())
                }

                pub fn set_handle(&self, handle: &str) -> Result<(), Error> {
                    self.minted.borrow_mut().handle = Some(handle.to_owned());
                    Ok(())
                }

                pub fn set_expires_at(&self, unix_secs: u64) -> Result<(), Error> {
                    if unix_secs > self.expires_at {
                        let message = "a credential must not outlive its permission";
                        return Err(Error::new(ErrorKind::InvalidInput, message));
                    }
                    self.minted.borrow_mut().expires_at = unix_secs;
                    Ok(())
                }

                pub fn set_join_key(&self, name: &str, value: &str) -> Result<(), Error> {
                    self.minted.borrow_mut().join_keys.insert(name.to_owned(), value.to_owned());
                    Ok(())
                }
            }
        }
    }
}

pub mod exports {
    //! The exported package.

    pub mod claviger {
        //! Its namespace.

        pub mod provider {
            //! `claviger:provider`.

            #[expect(clippy::module_inception, reason = "package and interface share a name")]
            pub mod provider {
                //! What a plugin implements.
                use crate::bindings::claviger::provider::calls::{
                    IssueRequest, Lease, RevokeRequest,
                };
                use crate::bindings::claviger::types::errors::Error;

                #[derive(Clone, Debug)]
                pub struct Problem {
                    pub pointer: String,
                    pub message: String,
                }

                pub trait Guest {
                    fn validate_config(config: String) -> Vec<Problem>;
                    fn issue(request: &IssueRequest, lease: &Lease) -> Result<(), Error>;
                    fn revoke(request: &RevokeRequest) -> Result<(), Error>;
                }
            }
        }
    }
}

pub mod batch {
    //! The ability to end several credentials at once.

    pub mod exports {
        //! The exported package.

        pub mod claviger {
            //! Its namespace.

            pub mod batch {
                //! `claviger:batch`.

                pub mod revocation {
                    //! What an able plugin implements.
                    use crate::bindings::claviger::provider::calls::RevokeRequest;
                    use crate::bindings::claviger::types::errors::Error;

                    pub trait Guest {
                        fn revoke_all(requests: Vec<RevokeRequest>) -> Result<(), Error>;
                    }
                }
            }
        }
    }
}
