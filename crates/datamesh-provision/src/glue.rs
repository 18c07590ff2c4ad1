//! AWS Glue's data catalog.
//!
//! Region, credentials and endpoint come from where AWS clients look for them (`AWS_REGION`, profiles, roles,
//! `AWS_ENDPOINT_URL_GLUE`, `AWS_ENDPOINT_URL`). An update replaces a whole definition, so it is made of the one that is
//! there, and names its version; what others wrote is kept.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_glue::Client;
use aws_sdk_glue::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_glue::types::{Column, Database as GlueDatabase, DatabaseInput, StorageDescriptor, Table, TableInput};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use datamesh_core::{Error, ErrorCode};

use crate::catalog::{CatalogColumn, CatalogTable, Database};
use crate::provision::{Change, FoundDatabase, FoundTable, Scope, State, Target, TargetError};

/// How the catalog is reached. What is not given comes from the environment, as AWS clients read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlueOptions {
    /// The region.
    pub region: Option<String>,
    /// The account whose catalog it is; `None`: the caller's.
    pub catalog_id: Option<String>,
    /// How long one call may take; `None`: 30 seconds.
    pub timeout: Option<Duration>,
}

/// A Glue catalog.
#[derive(Clone, Debug)]
pub struct GlueTarget {
    client: Client,
    catalog_id: Option<String>,
}

impl GlueTarget {
    /// The catalog of the environment. Calls are not tried again by the client: that is decided above.
    ///
    /// # Errors
    /// `invalid-argument` where no region is known.
    pub async fn connect(options: &GlueOptions) -> datamesh_core::Result<Self> {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let timeout = options.timeout.unwrap_or(Duration::from_secs(30));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .operation_attempt_timeout(timeout);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.build());
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(Error::new(ErrorCode::InvalidArgument, "no AWS region is known")
                .with_help("set AWS_REGION, or a region in the profile that AWS_PROFILE names"));
        }
        Ok(Self::new(Client::new(&config), options.catalog_id.clone()))
    }

    /// The catalog that a client reaches. The client must not try again by itself.
    pub fn new(client: Client, catalog_id: Option<String>) -> Self {
        Self { client, catalog_id }
    }

    async fn raw_table(&self, database: &str, name: &str) -> Result<Option<Table>, TargetError> {
        let call =
            self.client.get_table().set_catalog_id(self.catalog_id.clone()).database_name(database).name(name).send();
        match call.await.map_err(|error| classify("read a table", error)) {
            Ok(answer) => Ok(answer.table),
            Err(TargetError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn raw_database(&self, name: &str) -> Result<Option<GlueDatabase>, TargetError> {
        let call = self.client.get_database().set_catalog_id(self.catalog_id.clone()).name(name).send();
        match call.await.map_err(|error| classify("read a database", error)) {
            Ok(answer) => Ok(answer.database),
            Err(TargetError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn tables(&self, database: &str) -> Result<BTreeMap<String, FoundTable>, TargetError> {
        let call = self.client.get_tables().set_catalog_id(self.catalog_id.clone()).database_name(database);
        let mut pages = call.into_paginator().send();
        let mut tables = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify("list tables", error))?;
            for table in page.table_list.unwrap_or_default() {
                let found = found_table(table);
                tables.insert(found.table.name.clone(), found);
            }
        }
        Ok(tables)
    }

    async fn update_database(&self, database: &Database) -> Result<(), TargetError> {
        let found = self.raw_database(&database.name).await?.ok_or(TargetError::Missing)?;
        let input = database_input(database)
            .set_create_table_default_permissions(found.create_table_default_permissions)
            .set_target_database(found.target_database)
            .set_federated_database(found.federated_database);
        let call = self.client.update_database().set_catalog_id(self.catalog_id.clone()).name(&database.name);
        let call = call.database_input(input.build().map_err(unbuilt)?).send();
        call.await.map(drop).map_err(|error| classify("change a database", error))
    }

    async fn update_table(
        &self,
        database: &str,
        table: &CatalogTable,
        expected: Option<&str>,
    ) -> Result<(), TargetError> {
        let found = self.raw_table(database, &table.name).await?.ok_or(TargetError::Missing)?;
        if expected.is_some() && found.version_id.as_deref() != expected {
            return Err(TargetError::Conflict);
        }
        let storage = found.storage_descriptor.clone();
        let input = table_input(table, storage)?
            .retention(found.retention)
            .set_last_access_time(found.last_access_time)
            .set_last_analyzed_time(found.last_analyzed_time)
            .set_view_original_text(found.view_original_text)
            .set_view_expanded_text(found.view_expanded_text)
            .set_table_type(found.table_type.or_else(|| Some("EXTERNAL_TABLE".into())))
            .set_target_table(found.target_table);
        let call = self.client.update_table().set_catalog_id(self.catalog_id.clone()).database_name(database);
        let call = call.table_input(input.build().map_err(unbuilt)?).set_version_id(expected.map(str::to_owned));
        // Every publication moves a pointer; its versions are Iceberg's, and Glue's archive is limited.
        call.skip_archive(true).send().await.map(drop).map_err(|error| classify("change a table", error))
    }
}

#[async_trait]
impl Target for GlueTarget {
    fn name(&self) -> &'static str {
        "glue"
    }

    fn place(&self) -> String {
        let region = self.client.config().region().map(ToString::to_string).unwrap_or_default();
        match &self.catalog_id {
            None => region,
            Some(catalog_id) => format!("{region}/{catalog_id}"),
        }
    }

    async fn describe(&self, scope: &Scope) -> Result<State, TargetError> {
        let call = self.client.get_databases().set_catalog_id(self.catalog_id.clone());
        let mut pages = call.into_paginator().send();
        let mut covered = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify("list databases", error))?;
            let databases = page.database_list.into_iter().map(found_database);
            covered.extend(databases.filter(|database| scope.covers(database)));
        }
        let mut state = State::default();
        for database in covered {
            let tables = match self.tables(&database.name).await {
                // Somebody removed it meanwhile.
                Err(TargetError::Missing) => continue,
                tables => tables?,
            };
            state.databases.insert(database.name.clone(), FoundDatabase { database, tables });
        }
        Ok(state)
    }

    async fn database(&self, name: &str) -> Result<Option<FoundDatabase>, TargetError> {
        let Some(database) = self.raw_database(name).await? else { return Ok(None) };
        match self.tables(name).await {
            Err(TargetError::Missing) => Ok(None),
            tables => Ok(Some(FoundDatabase { database: found_database(database), tables: tables? })),
        }
    }

    async fn table(&self, database: &str, name: &str) -> Result<Option<FoundTable>, TargetError> {
        Ok(self.raw_table(database, name).await?.map(found_table))
    }

    async fn execute(&self, change: &Change) -> Result<(), TargetError> {
        let catalog_id = self.catalog_id.clone();
        match change {
            Change::CreateDatabase { database } => {
                let input = database_input(database).build().map_err(unbuilt)?;
                let call = self.client.create_database().set_catalog_id(catalog_id).database_input(input).send();
                call.await.map(drop).map_err(|error| classify("make a database", error))
            }
            Change::UpdateDatabase { database, .. } => self.update_database(database).await,
            Change::CreateTable { database, table } => {
                let input = table_input(table, None)?.table_type("EXTERNAL_TABLE").build().map_err(unbuilt)?;
                let call = self.client.create_table().set_catalog_id(catalog_id).database_name(database);
                call.table_input(input).send().await.map(drop).map_err(|error| classify("make a table", error))
            }
            Change::UpdateTable { database, table, expected, .. } => {
                self.update_table(database, table, expected.as_deref()).await
            }
            Change::DeleteTable { database, table } => {
                let call = self.client.delete_table().set_catalog_id(catalog_id).database_name(database).name(table);
                call.send().await.map(drop).map_err(|error| classify("remove a table", error))
            }
            Change::DeleteDatabase { database } => {
                let call = self.client.delete_database().set_catalog_id(catalog_id).name(database);
                call.send().await.map(drop).map_err(|error| classify("remove a database", error))
            }
        }
    }
}

/// An error with what led to it.
fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// What a failed call means for the object it was about.
fn classify<E, R>(doing: &str, error: SdkError<E, R>) -> TargetError
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let why = |code, error: &SdkError<E, R>| {
        let text = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => causes(error),
        };
        Error::new(code, format!("Glue cannot {doing}: {text}"))
    };
    let reach = "check the network, AWS_REGION and AWS_ENDPOINT_URL_GLUE; running the same command again goes on where it stopped";
    match &error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => {
            return TargetError::Unanswered(why(ErrorCode::WriteFailed, &error).with_help(reach));
        }
        // The last kind is a connection that ended before the answer.
        SdkError::DispatchFailure(failure)
            if failure.is_io() || failure.is_timeout() || failure.as_other().is_some() =>
        {
            return TargetError::Unanswered(why(ErrorCode::WriteFailed, &error).with_help(reach));
        }
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            return TargetError::Failed(
                why(ErrorCode::WriteFailed, &error)
                    .with_help("check the AWS credentials: AWS_PROFILE, AWS_ACCESS_KEY_ID, or a role"),
            );
        }
        _ => {}
    }
    let code = error.code().unwrap_or_default().to_owned();
    match code.as_str() {
        "EntityNotFoundException" => TargetError::Missing,
        "AlreadyExistsException" => TargetError::Exists,
        "ConcurrentModificationException" | "VersionMismatchException" => TargetError::Conflict,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "SlowDown"
        | "ResourceNotReadyException" => TargetError::Throttled(
            why(ErrorCode::WriteFailed, &error)
                .with_help("run the same command again later: it goes on where it stopped"),
        ),
        "OperationTimeoutException"
        | "InternalServiceException"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => {
            TargetError::Unanswered(why(ErrorCode::WriteFailed, &error).with_help(reach))
        }
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException" => TargetError::Failed(
            why(ErrorCode::Denied, &error)
                .with_help("the AWS identity needs to be allowed this in Glue and Lake Formation"),
        ),
        // An answer that is no answer of Glue's: a gateway's.
        "" => TargetError::Unanswered(why(ErrorCode::WriteFailed, &error).with_help(reach)),
        _ => TargetError::Failed(why(ErrorCode::WriteFailed, &error)),
    }
}

fn unbuilt(error: BuildError) -> TargetError {
    TargetError::Failed(Error::new(ErrorCode::Internal, "a call of Glue cannot be built").with_source(error))
}

fn hash(parameters: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    Some(parameters.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn sorted(parameters: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    parameters.unwrap_or_default().into_iter().collect()
}

fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn database_input(database: &Database) -> aws_sdk_glue::types::builders::DatabaseInputBuilder {
    DatabaseInput::builder()
        .name(&database.name)
        .set_description(database.description.clone())
        .set_location_uri(database.location.clone())
        .set_parameters(hash(&database.parameters))
}

fn columns(columns: &[CatalogColumn]) -> Result<Vec<Column>, TargetError> {
    let column = |column: &CatalogColumn| {
        Column::builder()
            .name(&column.name)
            .r#type(&column.data_type)
            .set_comment(column.comment.clone())
            .set_parameters(hash(&column.parameters).filter(|parameters| !parameters.is_empty()))
            .build()
            .map_err(unbuilt)
    };
    columns.iter().map(column).collect()
}

/// A table's definition, with what `storage` has beside columns and place.
fn table_input(
    table: &CatalogTable,
    storage: Option<StorageDescriptor>,
) -> Result<aws_sdk_glue::types::builders::TableInputBuilder, TargetError> {
    let mut storage = storage.unwrap_or_else(|| StorageDescriptor::builder().build());
    storage.columns = Some(columns(&table.columns)?);
    storage.location = table.location.clone();
    Ok(TableInput::builder()
        .name(&table.name)
        .set_description(table.description.clone())
        .set_owner(table.owner.clone())
        .storage_descriptor(storage)
        .set_partition_keys(Some(columns(&table.partition_keys)?))
        .set_parameters(hash(&table.parameters)))
}

fn found_database(database: GlueDatabase) -> Database {
    Database {
        name: database.name,
        description: some(database.description),
        location: some(database.location_uri),
        parameters: sorted(database.parameters),
    }
}

fn found_columns(columns: Option<Vec<Column>>) -> Vec<CatalogColumn> {
    let column = |column: Column| CatalogColumn {
        name: column.name,
        data_type: column.r#type.unwrap_or_default(),
        comment: some(column.comment),
        parameters: sorted(column.parameters),
    };
    columns.unwrap_or_default().into_iter().map(column).collect()
}

fn found_table(table: Table) -> FoundTable {
    let (columns, location) = match table.storage_descriptor {
        Some(storage) => (found_columns(storage.columns), some(storage.location)),
        None => (Vec::new(), None),
    };
    let found = CatalogTable {
        name: table.name,
        description: some(table.description),
        owner: some(table.owner),
        location,
        columns,
        partition_keys: found_columns(table.partition_keys),
        parameters: sorted(table.parameters),
    };
    FoundTable { table: found, version: table.version_id }
}
