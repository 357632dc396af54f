//! The cluster's secrets, as a node keeps them beside its data.

use rossby_api::ClusterSecrets;
use rossby_domain::identifier::{Identifier, IdentifierError};
use rossby_storage::datadir::ClusterIdentity;

use super::node::{Node, NodeError};
use crate::output::hex;

impl Node {
    pub(super) fn load_secrets(&self) -> Result<ClusterSecrets, NodeError> {
        let path = &self.parts.config.secrets;
        ClusterSecrets::load(path).map_err(|error| self.secrets_error(&error))
    }

    /// The secrets, if they are those of this cluster. With wrong secrets a node would take known people
    /// for unknown ones, so it must never start with them.
    pub(super) fn secrets_of(
        &self,
        cluster: &ClusterIdentity,
    ) -> Result<ClusterSecrets, NodeError> {
        let secrets = self.load_secrets()?;
        if cluster.secrets_check.as_ref() != Some(&self.secrets_check(&secrets)?) {
            return Err(self.secrets_error(&"these are the secrets of another cluster"));
        }
        Ok(secrets)
    }

    pub(super) fn save_secrets(&self, secrets: &ClusterSecrets) -> Result<(), NodeError> {
        let path = &self.parts.config.secrets;
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            let made = self.parts.disk.create_directory(folder);
            made.map_err(|error| self.secrets_error(&error))?;
        }
        secrets
            .save(path)
            .map_err(|error| self.secrets_error(&error))
    }

    /// What tells these secrets from others.
    pub(super) fn secrets_check(&self, secrets: &ClusterSecrets) -> Result<String, NodeError> {
        secrets_check(secrets).map_err(|error| self.secrets_error(&error))
    }

    fn secrets_error(&self, reason: &impl ToString) -> NodeError {
        NodeError::Secrets {
            path: self.parts.config.secrets.display().to_string(),
            reason: reason.to_string(),
        }
    }
}

/// A keyed hash of a fixed text: the same for the same secrets only.
///
/// # Errors
/// None: the fixed text is an address.
pub fn secrets_check(secrets: &ClusterSecrets) -> Result<String, IdentifierError> {
    let fixed = Identifier::email("secrets-check@rossby.internal")?;
    let hash = secrets.identifier_hash(&fixed);
    Ok(hex(hash.as_bytes()))
}
