//! `/models`: register, scale, describe, list, set the default, unregister. And what is left of workflows.
//!
//! [`Call`] says which paths and methods there are; everything after it is one function for each.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::json;

use super::describe::Description;
use super::list::{Entry, Listing, Page};
use super::params::Params;
use super::{Api, both, decode, encode, front, path};
use crate::failure::Failure;
use crate::name::Version;
use crate::registry::{Registered, Registration, ScaleReport, Scaling, Which};

type Reply = Result<Response, Failure>;

/// Adds the routes of this module.
pub(super) fn routes(mut router: Router<Arc<Api>>) -> Router<Arc<Api>> {
    for path in ["/models", "/workflows"] {
        router = both(router, path, any(manage));
    }
    for path in ["/models/{*path}", "/workflows/{*path}", "/v1/models/{*path}"] {
        router = router.route(path, any(manage));
    }
    router
}

/// What a client asks of management.
#[derive(Debug, PartialEq, Eq)]
enum Call<'a> {
    List,
    Register,
    Describe {
        model: &'a str,
        version: Option<&'a str>,
    },
    DescribeAll {
        model: &'a str,
    },
    Scale {
        model: &'a str,
        version: Option<&'a str>,
    },
    SetDefault {
        model: &'a str,
        version: &'a str,
    },
    Unregister {
        model: &'a str,
        version: Option<&'a str>,
    },
    /// `KServe`'s question after a model.
    IsReady {
        model: &'a str,
    },
    ListWorkflows,
    RegisterWorkflow,
}

impl<'a> Call<'a> {
    /// What `method` on a decoded path means.
    fn new(method: &Method, path: &'a str) -> Result<Self, Failure> {
        let segments: Vec<_> = path.splitn(6, '/').collect();
        let known = match (&segments[..], method) {
            (["models"], &Method::GET) => Self::List,
            (["models"], &Method::POST) => Self::Register,
            (["models", model, "all"], &Method::GET) => Self::DescribeAll { model },
            (["models", model, rest @ ..], method) if rest.len() < 2 => {
                let version = rest.first().copied();
                match *method {
                    Method::GET => Self::Describe { model, version },
                    Method::PUT => Self::Scale { model, version },
                    Method::DELETE => Self::Unregister { model, version },
                    _ => return Err(Failure::MethodNotAllowed),
                }
            }
            (["models", model, version, "set-default"], &Method::PUT) => Self::SetDefault { model, version },
            (["v1", "models", model], &Method::GET) => Self::IsReady { model },
            (["workflows"], &Method::GET) => Self::ListWorkflows,
            (["workflows"], &Method::POST) => Self::RegisterWorkflow,
            (["models"] | ["models", _, _, "set-default"] | ["v1", "models", _] | ["workflows"], _) => {
                return Err(Failure::MethodNotAllowed);
            }
            _ => return Err(Failure::RouteNotFound),
        };
        Ok(known)
    }
}

async fn manage(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = path::decoded(&head.uri);
    let admitted = api.names.admit(&head.headers).and_then(|()| Call::new(&head.method, &path));
    let reply = match admitted {
        Ok(call) => answer(&api, call, &head, body).await,
        Err(failure) => Err(failure),
    };
    reply.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(api: &Api, call: Call<'_>, head: &Parts, body: Body) -> Reply {
    match call {
        Call::List => list(api, head),
        Call::Register => register(api, head, body).await,
        Call::Describe { model, version } => describe(api, head, model, version).await,
        Call::DescribeAll { model } => describe_all(api, model),
        Call::Scale { model, version } => scale(api, head, model, version).await,
        Call::SetDefault { model, version } => set_default(api, model, version),
        Call::Unregister { model, version } => unregister(api, model, version).await,
        Call::IsReady { model } => is_ready(api, model),
        Call::ListWorkflows => Ok(encode::json(StatusCode::OK, &json!({"workflows": []}))),
        Call::RegisterWorkflow => {
            Err(Failure::BadRequest { message: "Registering new workflows is disabled.".to_owned() })
        }
    }
}

fn list(api: &Api, head: &Parts) -> Reply {
    let page = Page::of(&Params::of_query(head))?;
    let models = api.registry.list();
    let entries =
        models.iter().map(|model| Entry { model_name: model.name.to_string(), model_url: model.url.clone() });
    Ok(encode::json(StatusCode::OK, &Listing::new(page, entries)))
}

async fn register(api: &Api, head: &Parts, body: Body) -> Reply {
    api.may_change_models()?;
    let params = Params::of_request(head, body, api.max_request_size).await?;
    let registration = registration(&params)?;
    Ok(match api.registry.register(registration).await? {
        Registered::WithoutWorkers { model, version } => encode::status(
            StatusCode::OK,
            &format!(
                "Model \"{model}\" Version: {version} registered with 0 initial workers. \
                 Use scale workers API to add workers for the model."
            ),
        ),
        Registered::Ready { model, version, workers } => encode::status(
            StatusCode::OK,
            &format!("Model \"{model}\" Version: {version} registered with {workers} initial workers"),
        ),
        Registered::Processing => processing(),
    })
}

fn registration(params: &Params) -> Result<Registration, Failure> {
    let seconds = |name| Ok::<_, Failure>(params.count(name)?.map(|count| Duration::from_secs(count.into())));
    Ok(Registration {
        url: params.text("url")?.ok_or(Failure::ParameterRequired { name: "url" })?,
        model_name: filled(params.text("model_name")?),
        handler: filled(params.text("handler")?),
        runtime: filled(params.text("runtime")?),
        batch_size: params.count("batch_size")?.filter(|size| *size > 0),
        max_batch_delay: params.count("max_batch_delay")?.map(|count| Duration::from_millis(count.into())),
        response_timeout: seconds("response_timeout")?,
        startup_timeout: seconds("startup_timeout")?,
        // Below zero means none, not unset.
        initial_workers: params.int("initial_workers")?.map(|count| u32::try_from(count).unwrap_or(0)),
        synchronous: params.flag("synchronous")?.unwrap_or(true),
        s3_sse_kms: params.flag("s3_sse_kms")?.unwrap_or(false),
    })
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn processing() -> Response {
    encode::status(StatusCode::ACCEPTED, "Processing worker updates...")
}

async fn describe(api: &Api, head: &Parts, model: &str, version: Option<&str>) -> Reply {
    let found = match api.registry.versions(model, version.map_or(Which::Default, Which::Named)) {
        Ok(found) => found,
        Err(failure) => return being_registered(api, model, version).ok_or(failure),
    };
    if Params::of_query(head).flag("customized")? != Some(true) {
        return Ok(described(found.iter().map(|version| Description::of(version))));
    }
    let mut descriptions = Vec::with_capacity(found.len());
    for version in &found {
        let id = decode::request_id(head.headers.get(front::REQUEST_ID));
        descriptions.push(Description::customized(version, id).await?);
    }
    Ok(described(descriptions.into_iter()))
}

/// What is known of versions that were accepted and aren't there yet.
fn being_registered(api: &Api, model: &str, version: Option<&str>) -> Option<Response> {
    let mut on_the_way = api.registry.registering(model);
    on_the_way.retain(|one| version.is_none() || version == one.version().map(Version::as_str));
    let described = described(on_the_way.iter().map(|one| Description::of_registering(one)));
    (!on_the_way.is_empty()).then_some(described)
}

fn describe_all(api: &Api, model: &str) -> Reply {
    let on_the_way = api.registry.registering(model);
    let there = match api.registry.versions(model, Which::All) {
        Err(_) if !on_the_way.is_empty() => Vec::new(),
        found => found?,
    };
    let there = there.iter().map(|version| Description::of(version));
    Ok(described(there.chain(on_the_way.iter().map(|one| Description::of_registering(one)))))
}

fn described(versions: impl Iterator<Item = Description>) -> Response {
    encode::json(StatusCode::OK, &versions.collect::<Vec<_>>())
}

async fn scale(api: &Api, head: &Parts, model: &str, version: Option<&str>) -> Reply {
    let params = Params::of_query(head);
    let in_query = params.text("model_version")?;
    let version = version.or(in_query.as_deref());
    let scaling = scaling(&params)?;
    Ok(match api.registry.scale(model, version, scaling).await? {
        ScaleReport::Processing => processing(),
        ScaleReport::InProgress => {
            encode::status(StatusCode::PARTIAL_CONTENT, "Workers scaling in progress...")
        }
        ScaleReport::Done { workers } => {
            let version = version.map(|version| format!(", version: {version}")).unwrap_or_default();
            encode::status(
                StatusCode::OK,
                &format!("Workers scaled to {workers} for model: {model}{version}"),
            )
        }
    })
}

fn scaling(params: &Params) -> Result<Scaling, Failure> {
    Ok(Scaling {
        min: params.int("min_worker")?.map(i64::from),
        max: params.int("max_worker")?.map(i64::from),
        synchronous: params.flag("synchronous")?.unwrap_or(false),
    })
}

fn set_default(api: &Api, model: &str, version: &str) -> Reply {
    api.registry.set_default(model, version)?;
    let text = format!("Default version successfully updated for model \"{model}\" to \"{version}\"");
    Ok(encode::status(StatusCode::OK, &text))
}

async fn unregister(api: &Api, model: &str, version: Option<&str>) -> Reply {
    api.may_change_models()?;
    api.registry.unregister(model, version).await?;
    Ok(encode::status(StatusCode::OK, &format!("Model \"{model}\" unregistered")))
}

fn is_ready(api: &Api, model: &str) -> Reply {
    let version = api.registry.resolve(model, None)?;
    let ready = !version.pool.workers().is_empty();
    Ok(encode::json(StatusCode::OK, &json!({"name": model, "ready": ready})))
}

#[cfg(test)]
mod tests;
