//! Names of models and versions. They are checked nowhere else: a name that exists is one that a registration gave.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// A model's name.
    ModelName
);
name!(
    /// A version of a model: an opaque text, without order.
    Version
);

/// What a client asked for: a model, and a version or else the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// The model.
    pub model: ModelName,
    /// The version, if the client named one.
    pub version: Option<Version>,
}

/// A worker of a model version. Its number stands where TorchServe shows the worker's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerName {
    /// Counts up from `initial_worker_port` and is never given twice.
    pub id: u32,
    /// The model it serves.
    pub model: ModelName,
    /// The version it serves.
    pub version: Version,
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W-{}-{}_{}", self.id, self.model, self.version)
    }
}
