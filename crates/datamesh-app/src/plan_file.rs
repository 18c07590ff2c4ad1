//! A plan as a file: what was planned is what is applied, or nothing is.
//!
//! The digest is an HMAC-SHA256 (RFC 2104) with the mesh's key over the JSON text of the plan with sorted keys, so that
//! spaces do not count, and every value does.

use datamesh_core::identity::MeshIdentity;
use datamesh_core::plan::{MeshPlan, PLAN_FORMAT};
use datamesh_core::{Error, ErrorCode, Result};
use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

/// What the file is, in its `kind`.
const KIND: &str = "datamesh-plan";

/// The file's text.
///
/// # Errors
/// `internal` where the plan cannot be written.
pub fn write(plan: &MeshPlan, identity: &MeshIdentity) -> Result<String> {
    let failed = |error| Error::new(ErrorCode::Internal, "the plan cannot be written").with_source(error);
    let mut document = Map::new();
    document.insert("kind".to_owned(), KIND.into());
    document.insert("plan".to_owned(), serde_json::to_value(plan).map_err(failed)?);
    let digest = mac(&document, identity)?.finalize().into_bytes();
    document.insert("digest".to_owned(), format!("hmac-sha256:{}", hex(&digest)).into());
    let text = serde_json::to_string_pretty(&document).map_err(failed)?;
    Ok(text + "\n")
}

/// Reads a file that [`write`] made for this mesh.
///
/// # Errors
/// `invalid-argument` for what is no plan, `plan-too-new` for one of a newer version, `plan-of-another-mesh`, and
/// `plan-edited` for one that somebody changed.
pub fn read(text: &str, identity: &MeshIdentity) -> Result<MeshPlan> {
    let invalid = |why: &str| {
        Error::new(ErrorCode::InvalidArgument, format!("the file is no plan: {why}"))
            .with_help("`datamesh plan --out FILE` writes one")
    };
    let document: Value = serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
    let Value::Object(mut document) = document else { return Err(invalid("it is no JSON object")) };
    if document.get("kind").and_then(Value::as_str) != Some(KIND) {
        return Err(invalid(&format!("its `kind` is not `{KIND}`")));
    }
    let field = |key: &str| document.get("plan").and_then(|plan| plan.get(key)).cloned();
    let format = field("format").and_then(|format| format.as_u64()).ok_or_else(|| invalid("it has no `format`"))?;
    if format > u64::from(PLAN_FORMAT) {
        return Err(Error::new(
            ErrorCode::PlanTooNew,
            format!("the plan has format {format}, and this datamesh reads formats up to {PLAN_FORMAT}"),
        )
        .with_help("use the datamesh that wrote it, or a newer one"));
    }
    let mesh = field("mesh").and_then(|mesh| mesh.as_str().map(str::to_owned)).unwrap_or_default();
    if mesh != identity.id.to_string() {
        return Err(Error::new(
            ErrorCode::PlanOfAnotherMesh,
            format!("the plan is for mesh `{mesh}`, and this is mesh `{}`", identity.id),
        )
        .with_help("apply it where it was made, or plan anew here"));
    }
    let edited = || {
        Error::new(ErrorCode::PlanEdited, "the plan was changed after it was written: its digest does not fit")
            .with_help("a plan is applied as it was made; change the manifests, and plan anew")
    };
    let digest = document.remove("digest").and_then(|digest| digest.as_str().map(str::to_owned)).unwrap_or_default();
    let digest = digest.strip_prefix("hmac-sha256:").and_then(unhex).ok_or_else(edited)?;
    mac(&document, identity)?.verify_slice(&digest).map_err(|_| edited())?;
    let plan = document.remove("plan").unwrap_or_default();
    serde_json::from_value(plan).map_err(|error| invalid(&error.to_string()))
}

/// A document with the keys of every object in order: whether the JSON library keeps them so is a matter of its build.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> =
                fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn mac(document: &Map<String, Value>, identity: &MeshIdentity) -> Result<Hmac<Sha256>> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(ErrorCode::Internal, format!("the plan's digest cannot be computed: {error}"))
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&identity.key).map_err(|error| failed(&error))?;
    let document = sorted(&Value::Object(document.clone()));
    mac.update(&serde_json::to_vec(&document).map_err(|error| failed(&error))?);
    Ok(mac)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use datamesh_core::plan::PlanOptions;
    use uuid::Uuid;

    use super::*;

    fn identity(id: u128, key: u8) -> MeshIdentity {
        MeshIdentity { id: Uuid::from_u128(id), key: [key; 32] }
    }

    fn plan() -> MeshPlan {
        MeshPlan {
            format: PLAN_FORMAT,
            mesh: identity(1, 0).id.to_string(),
            generation: 7,
            governance: None,
            options: PlanOptions::default(),
            domains: Vec::new(),
            moves: Vec::new(),
            products: Vec::new(),
        }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written_and_otherwise_not_at_all() {
        let own = identity(1, 9);
        let text = write(&plan(), &own).expect("it is written");
        assert_eq!(read(&text, &own).expect("it is read"), plan());
        let spaced = text.replace('\n', " ");
        assert_eq!(read(&spaced, &own).expect("spaces do not count"), plan());
        let code = |text: &str, identity: &MeshIdentity| read(text, identity).expect_err("it is refused").code();
        assert_eq!(code(&text.replace("\"generation\": 7", "\"generation\": 8"), &own), ErrorCode::PlanEdited);
        assert_eq!(code(&text.replace("hmac-sha256:", "sha256:"), &own), ErrorCode::PlanEdited);
        assert_eq!(code(&text, &identity(1, 8)), ErrorCode::PlanEdited);
        assert_eq!(code(&text, &identity(2, 9)), ErrorCode::PlanOfAnotherMesh);
        assert_eq!(code(&text.replace("\"format\": 2", "\"format\": 3"), &own), ErrorCode::PlanTooNew);
        for bad in ["", "{", "[]", "{}", "{\"kind\": \"datamesh-plan\"}"] {
            assert_eq!(code(bad, &own), ErrorCode::InvalidArgument, "{bad}");
        }
    }
}
