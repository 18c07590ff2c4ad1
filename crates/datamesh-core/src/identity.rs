//! Which mesh a registry is that of.

use std::fmt;

use uuid::Uuid;

/// What tells a mesh from every other one. Made at random, once, with its registry.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshIdentity {
    /// The mesh's id.
    pub id: Uuid,
    /// The key of digests that show whether a file of this mesh was changed. It is never printed.
    pub key: [u8; 32],
}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshIdentity").field("id", &self.id).finish_non_exhaustive()
    }
}
