//! Which engines a tenant's callers may make kvindex connect to.

use serde_json::{Value, json};

use super::rig::{ALL, Guarded, WAYS, token};

fn registration(tenant: &str, more: &Value) -> Value {
    let mut request = json!({"worker_id": format!("{tenant}/w"), "model": "llama", "replace": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_callers_name_its_engines_and_no_others() {
    let tenants = "[[tenants]]\nname = \"a\"\nengines = [\"192.0.2.0/28\", \"*.a.invalid\"]\n\
                   [[tenants]]\nname = \"any\"\nengines = [\"*\"]\n";
    let tokens = ["a", "any", "none"].map(|name| token(name, ALL, name, "")).concat();
    let node = Guarded::start(&[tenants, &tokens, &token("root", ALL, "*", "")].concat()).await;
    let at = |host: &str| json!({"endpoint": format!("tcp://{host}:5557")});
    let replayed = json!({"endpoint": "tcp://192.0.2.1:5557", "replay_endpoint": "tcp://192.0.2.99:5558"});
    for way in WAYS {
        let register = async |who: &str, more: Value| {
            node.call(way, who, "register", registration(who, &more)).await.map_err(|refusal| {
                assert_eq!(refusal.code, "permission_denied", "{refusal:?}");
                refusal.message
            })
        };
        for host in ["192.0.2.1", "w0.a.invalid"] {
            register("a", at(host)).await.unwrap();
            let refused = register("none", at(host)).await.unwrap_err();
            assert!(refused.contains("tenant \"none\"") && refused.contains("`engines`"), "{refused}");
            register("any", at(host)).await.unwrap();
        }
        for more in [at("192.0.2.16"), at("w0.b.invalid"), replayed.clone()] {
            let refused = register("a", more.clone()).await.unwrap_err();
            assert!(refused.contains("not among the tenant's engines"), "{refused}");
            register("any", more).await.unwrap();
        }
        for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"] {
            for who in ["a", "any", "none"] {
                let refused = register(who, at(host)).await.unwrap_err();
                assert!(refused.contains("this machine's"), "{refused}");
            }
            register("root", at(host)).await.unwrap();
        }
        for who in ["a", "any", "none"] {
            register(who, json!({})).await.unwrap();
            // What some resolvers read as an address.
            for host in ["127.1", "0x7f.1", "2130706433"] {
                register(who, at(host)).await.unwrap_err();
            }
        }
    }
}
