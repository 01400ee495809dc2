//! The models as readers see them: immutable, replaced as a whole.
//!
//! A model holds its default version itself rather than its name, so there is no model without one.

use std::collections::HashMap;
use std::sync::Arc;

use super::version::ModelVersion;
use crate::failure::Failure;
use crate::name::ModelName;

/// All models.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    models: HashMap<ModelName, Model>,
}

#[derive(Debug, Clone)]
struct Model {
    default: Arc<ModelVersion>,
    /// In the order of their registration.
    others: Vec<Arc<ModelVersion>>,
}

/// Which versions of a model are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// The default one.
    Default,
    /// The one of this name.
    Named(&'a str),
    /// All, the default one first.
    All,
}

impl<'a> From<Option<&'a str>> for Which<'a> {
    fn from(version: Option<&'a str>) -> Self {
        version.map_or(Self::Default, Self::Named)
    }
}

impl Model {
    fn all(&self) -> impl Iterator<Item = &Arc<ModelVersion>> {
        std::iter::once(&self.default).chain(&self.others)
    }

    fn named(&self, version: &str) -> Option<&Arc<ModelVersion>> {
        self.all().find(|candidate| candidate.version.as_str() == version)
    }
}

impl Snapshot {
    fn model(&self, model: &str) -> Result<&Model, Failure> {
        self.models.get(model).ok_or_else(|| Failure::ModelNotFound { model: model.to_owned() })
    }

    /// A version; the default one if none is named.
    pub(super) fn resolve(&self, model: &str, version: Option<&str>) -> Result<&Arc<ModelVersion>, Failure> {
        let found = self.model(model)?;
        let Some(version) = version else { return Ok(&found.default) };
        let name = || found.default.name.clone();
        let not_found = || Failure::VersionNotFound { model: name(), version: version.to_owned() };
        found.named(version).ok_or_else(not_found)
    }

    pub(super) fn versions(&self, model: &str, which: Which<'_>) -> Result<Vec<Arc<ModelVersion>>, Failure> {
        match which {
            Which::Default => Ok(vec![self.resolve(model, None)?.clone()]),
            Which::Named(version) => Ok(vec![self.resolve(model, Some(version))?.clone()]),
            Which::All => Ok(self.model(model)?.all().cloned().collect()),
        }
    }

    /// The default versions, in no order.
    pub(super) fn defaults(&self) -> impl Iterator<Item = &Arc<ModelVersion>> {
        self.models.values().map(|model| &model.default)
    }

    /// All versions of all models, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ModelVersion>> {
        self.models.values().flat_map(Model::all)
    }

    /// Whether this very version is still registered.
    pub(super) fn holds(&self, version: &Arc<ModelVersion>) -> bool {
        let found = self.resolve(version.name.as_str(), Some(version.version.as_str()));
        found.is_ok_and(|found| Arc::ptr_eq(found, version))
    }

    /// With one version more. The first of a model becomes its default.
    pub(super) fn with(&self, version: &Arc<ModelVersion>) -> Result<Self, Failure> {
        let mut next = self.clone();
        match next.models.get_mut(version.name.as_str()) {
            None => {
                let model = Model { default: version.clone(), others: Vec::new() };
                next.models.insert(version.name.clone(), model);
            }
            Some(model) if model.named(version.version.as_str()).is_some() => {
                return Err(version.exists());
            }
            Some(model) => model.others.push(version.clone()),
        }
        Ok(next)
    }

    /// With another default version.
    pub(super) fn with_default(&self, model: &str, version: &str) -> Result<Self, Failure> {
        self.model(model)?;
        let mut next = self.clone();
        if let Some(model) = next.models.get_mut(model)
            && model.default.version.as_str() != version
        {
            let index = model.others.iter().position(|other| other.version.as_str() == version);
            let Some(index) = index else {
                let model = model.default.name.clone();
                return Err(Failure::DefaultNotFound { model, version: version.to_owned() });
            };
            std::mem::swap(&mut model.default, &mut model.others[index]);
        }
        Ok(next)
    }

    /// Without a version that a client wants gone. The default one goes last.
    pub(super) fn without(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<(Self, Arc<ModelVersion>), Failure> {
        let version = self.resolve(model, version)?.clone();
        let found = self.model(model)?;
        if Arc::ptr_eq(&found.default, &version) && !found.others.is_empty() {
            return Err(Failure::DefaultInUse { model: version.name.clone() });
        }
        Ok((self.without_failed(&version), version))
    }

    /// Without a version that hasn't come up, whatever it is. Was it the default one, the oldest of the
    /// others is next.
    pub(super) fn without_failed(&self, version: &Arc<ModelVersion>) -> Self {
        let mut next = self.clone();
        let Some(model) = next.models.get_mut(version.name.as_str()) else { return next };
        model.others.retain(|other| !Arc::ptr_eq(other, version));
        if Arc::ptr_eq(&model.default, version) {
            if model.others.is_empty() {
                next.models.remove(version.name.as_str());
            } else {
                model.default = model.others.remove(0);
            }
        }
        next
    }
}
