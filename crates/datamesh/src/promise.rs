//! What a product promises, for programs: what `show` tells, its rules in words, the text of its manifest, and what was
//! granted to whoever asks.

use std::path::Path;

use datamesh_app::access::own_grants;
use datamesh_app::ports::Context;
use datamesh_app::read::{self, find_product};
use datamesh_core::decision::Action;
use datamesh_core::ports::{CatalogProduct, Revision};
use datamesh_core::rules::rules;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_manifest::LoadedProduct;
use serde_json::{Value, json};

use crate::commands::{find_manifest, majors_beside, show_json};

/// What a product promises: as it is registered, else as its manifest says.
///
/// # Errors
/// `not-found`; `denied` where the caller may not see it.
pub async fn promise(root: &Path, context: &Context, wanted: &str) -> Result<Value> {
    let manifest = find_manifest(root, wanted);
    let (product, registered) = match (find_product(context, wanted, None).await, &manifest) {
        (Ok(product), _) => (product, true),
        (Err(error), Ok(found)) if error.code() == ErrorCode::NotFound => {
            if !context.may_find(&found.contract).await? {
                return Err(error);
            }
            (unregistered(context, found), false)
        }
        // Of a manifest with errors more is known than that nothing is registered.
        (Err(error), Err(broken)) if error.code() == ErrorCode::NotFound && broken.code() != ErrorCode::NotFound => {
            return Err(broken.restate());
        }
        (Err(error), _) => return Err(error),
    };
    let contract = &product.revision.contract;
    let details = json!({ "operation": "show" });
    context.authorize_product(Action::Describe, contract, details).await?;
    let mut document = if registered {
        let publications = read::publications(context, contract, 100).await?;
        let majors = majors_beside(context, &product).await?;
        let facts = read::facts(context, std::slice::from_ref(&product)).await?;
        let mut document = show_json(&product, &majors, &publications, &facts);
        let grants = own_grants(context, &product.key).await?;
        if !grants.is_empty() {
            document["access"] = json!({ "grants": grants });
        }
        document
    } else {
        show_json(&product, &[], &[], &Default::default())
    };
    if let Some(tables) = document.get_mut("tables").and_then(Value::as_array_mut) {
        for (shown, table) in tables.iter_mut().zip(&contract.tables) {
            shown["rules"] = json!(rules(table));
        }
    }
    document["registered"] = registered.into();
    document["manifest"] = match &manifest {
        Ok(found) if found.contract.key() == product.key => Value::from(text(found)?),
        _ => Value::Null,
    };
    Ok(document)
}

fn unregistered(context: &Context, found: &LoadedProduct) -> CatalogProduct {
    CatalogProduct {
        key: found.contract.key(),
        revision: Revision {
            number: 0,
            contract: found.contract.clone(),
            created_at: context.clock.now(),
            created_by: context.principal.id.clone(),
        },
        tables: Vec::new(),
    }
}

fn text(found: &LoadedProduct) -> Result<String> {
    std::fs::read_to_string(&found.path)
        .map_err(|error| Error::io(ErrorCode::InvalidManifest, "read", &found.path, error))
}
