//! The route table, and what parameters mean. What the calls do is tested with the registry behind them.

use super::*;
use http::Request;

fn params(query: &str) -> Params {
    let request = Request::get(format!("/models?{query}")).body(()).unwrap();
    Params::of_query(&request.into_parts().0)
}

#[test]
fn each_path_and_method_means_one_call() {
    let none = None;
    for (method, path, expected) in [
        ("GET", "models", Call::List),
        ("POST", "models", Call::Register),
        ("GET", "models/m", Call::Describe { model: "m", version: none }),
        ("GET", "models/m/1.0", Call::Describe { model: "m", version: Some("1.0") }),
        ("GET", "models/m/all", Call::DescribeAll { model: "m" }),
        ("PUT", "models/m", Call::Scale { model: "m", version: none }),
        ("PUT", "models/m/all", Call::Scale { model: "m", version: Some("all") }),
        ("PUT", "models/m/set-default", Call::Scale { model: "m", version: Some("set-default") }),
        ("PUT", "models/m/2/set-default", Call::SetDefault { model: "m", version: "2" }),
        ("DELETE", "models/m", Call::Unregister { model: "m", version: none }),
        ("DELETE", "models/m/2", Call::Unregister { model: "m", version: Some("2") }),
        ("GET", "v1/models/m", Call::IsReady { model: "m" }),
        ("GET", "workflows", Call::ListWorkflows),
        ("POST", "workflows", Call::RegisterWorkflow),
    ] {
        assert_eq!(Call::new(&method.parse().unwrap(), path), Ok(expected), "{method} {path}");
    }
}

#[test]
fn everything_else_is_refused() {
    for (method, path, expected) in [
        ("PUT", "models", Failure::MethodNotAllowed),
        ("DELETE", "models", Failure::MethodNotAllowed),
        ("OPTIONS", "models/m", Failure::MethodNotAllowed),
        ("POST", "models/m", Failure::MethodNotAllowed),
        ("PATCH", "models/m/1", Failure::MethodNotAllowed),
        ("GET", "models/m/2/set-default", Failure::MethodNotAllowed),
        ("POST", "v1/models/m", Failure::MethodNotAllowed),
        ("DELETE", "workflows", Failure::MethodNotAllowed),
        ("GET", "workflows/w", Failure::RouteNotFound),
        ("GET", "models/m/2/other", Failure::RouteNotFound),
        ("PUT", "models/m/2/set-default/x", Failure::RouteNotFound),
        ("GET", "v1/models", Failure::RouteNotFound),
    ] {
        assert_eq!(Call::new(&method.parse().unwrap(), path), Err(expected), "{method} {path}");
    }
}

#[test]
fn what_a_registration_leaves_out_stays_unset() {
    let registration =
        registration(&params("url=m.mar&model_name=&batch_size=0&max_batch_delay=-1")).unwrap();
    assert_eq!(registration.url, "m.mar");
    assert_eq!(registration.model_name, None);
    assert_eq!(registration.batch_size, None);
    assert_eq!(registration.max_batch_delay, None);
    assert_eq!(registration.response_timeout, None);
    assert_eq!(registration.initial_workers, None);
    assert!(registration.synchronous);
}

#[test]
fn a_registration_carries_each_parameter() {
    let query = "url=m.mar&model_name=n&handler=h:f&runtime=python3&batch_size=8&max_batch_delay=0\
                 &response_timeout=7&startup_timeout=0&initial_workers=-2&synchronous=false&s3_sse_kms=true";
    let registration = registration(&params(query)).unwrap();
    assert_eq!(registration.model_name.as_deref(), Some("n"));
    assert_eq!(registration.handler.as_deref(), Some("h:f"));
    assert_eq!(registration.runtime.as_deref(), Some("python3"));
    assert_eq!(registration.batch_size, Some(8));
    assert_eq!(registration.max_batch_delay, Some(Duration::ZERO));
    assert_eq!(registration.response_timeout, Some(Duration::from_secs(7)));
    assert_eq!(registration.startup_timeout, Some(Duration::ZERO));
    assert_eq!(registration.initial_workers, Some(0));
    assert!(!registration.synchronous);
}

#[test]
fn a_registration_needs_a_url() {
    assert_eq!(registration(&params("")).unwrap_err(), Failure::ParameterRequired { name: "url" });
    assert_eq!(registration(&params("url=")).unwrap().url, "");
}

#[test]
fn a_scaling_says_what_the_client_said() {
    for (query, min, max, synchronous) in [
        ("", None, None, false),
        ("min_worker=3", Some(3), None, false),
        ("min_worker=-1&max_worker=-2", Some(-1), Some(-2), false),
        ("min_worker=1&max_worker=2&synchronous=TRUE", Some(1), Some(2), true),
        ("min_worker=some&number_gpu=1&timeout=-1", None, None, false),
    ] {
        assert_eq!(scaling(&params(query)).unwrap(), Scaling { min, max, synchronous }, "{query}");
    }
}
