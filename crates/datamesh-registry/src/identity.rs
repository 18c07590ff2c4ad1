//! Which mesh the registry is that of, and how often what is applied has changed.

use datamesh_core::identity::MeshIdentity;
use datamesh_core::ports::Revisions;
use datamesh_core::{Error, ErrorCode, Result};

use crate::store::{Session, sql};

/// The row that opening the registry makes is gone.
pub(crate) fn missing() -> Error {
    Error::new(ErrorCode::Registry, "the registry does not say which mesh it is that of: its table `mesh` is empty")
        .with_help("restore the registry from a backup")
}

pub(crate) async fn read(session: &mut Session) -> Result<MeshIdentity> {
    let row = sql("SELECT id, key FROM mesh").fetch_optional(session).await?.ok_or_else(missing)?;
    let (id, key) = (row.text("id")?, row.bytes("key")?);
    Ok(MeshIdentity {
        id: id
            .parse()
            .map_err(|_| Error::new(ErrorCode::Registry, format!("the registry holds `{id}` as the mesh's id")))?,
        key: key.try_into().map_err(|_| Error::new(ErrorCode::Registry, "the registry's key has not 32 bytes"))?,
    })
}

pub(crate) async fn generation(session: &mut Session) -> Result<u64> {
    let row = sql("SELECT generation FROM mesh").fetch_optional(session).await?.ok_or_else(missing)?;
    row.number("generation")
}

/// What decisions depend on.
pub(crate) async fn revisions(session: &mut Session) -> Result<Revisions> {
    let row = sql("SELECT generation, governance_revision, grant_revision FROM mesh").fetch_optional(session).await?;
    let row = row.ok_or_else(missing)?;
    Ok(Revisions {
        generation: row.number("generation")?,
        governance: row.number("governance_revision")?,
        grants: row.number("grant_revision")?,
    })
}

/// Counts one more change of what was granted; the revision now.
pub(crate) async fn next_grant_revision(session: &mut Session) -> Result<u64> {
    let next = sql("UPDATE mesh SET grant_revision = grant_revision + 1 RETURNING grant_revision");
    next.fetch_optional(session).await?.ok_or_else(missing)?.number("grant_revision")
}
