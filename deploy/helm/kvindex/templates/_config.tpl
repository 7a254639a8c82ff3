{{/* The file kvindex.toml: the keys that the chart knows best, then those of .Values.config. */}}

{{- define "kvindex.ownKeys" -}}
{{- $tls := "/etc/kvindex/tls" -}}
{{- $keys := dict "listen" "[::]:9590" -}}
{{- if .Values.cluster.enabled -}}
  {{- $_ := set $keys "peer_listen" "[::]:9591" -}}
  {{- $_ := set $keys "cluster_peers" (printf "dns:%s:9591" (include "kvindex.peersHost" .)) -}}
  {{- $_ := set $keys "cluster_size" .Values.cluster.size -}}
  {{- $_ := set $keys "data_dir" "/var/lib/kvindex/node" -}}
{{- else -}}
  {{- $_ := set $keys "snapshot_path" "/var/lib/kvindex/index.snapshot" -}}
{{- end -}}
{{- if .Values.metrics.port -}}
  {{- $_ := set $keys "metrics_listen" (printf "[::]:%d" (int .Values.metrics.port)) -}}
{{- end -}}
{{- if include "kvindex.publicSecret" . -}}
  {{- $_ := set $keys "tls_cert" (printf "%s/public/tls.crt" $tls) -}}
  {{- $_ := set $keys "tls_key" (printf "%s/public/tls.key" $tls) -}}
  {{- if .Values.tls.public.clientCASecretName -}}
    {{- $_ := set $keys "tls_client_ca" (printf "%s/clients/ca.crt" $tls) -}}
    {{- $_ := set $keys "tls_client_auth" .Values.tls.public.clientAuth -}}
  {{- end -}}
{{- end -}}
{{- if include "kvindex.peerSecret" . -}}
  {{- $_ := set $keys "peer_tls_cert" (printf "%s/peer/tls.crt" $tls) -}}
  {{- $_ := set $keys "peer_tls_key" (printf "%s/peer/tls.key" $tls) -}}
  {{- $_ := set $keys "peer_tls_ca" (printf "%s/peer/ca.crt" $tls) -}}
  {{- /* Peers are found by address; this is the name that every peer's certificate carries. */ -}}
  {{- $_ := set $keys "peer_tls_name" (include "kvindex.peersHost" .) -}}
{{- end -}}
{{- if .Values.access.secretName -}}
  {{- $_ := set $keys "access_file" (printf "/etc/kvindex/access/%s" .Values.access.key) -}}
{{- end -}}
{{- toJson $keys -}}
{{- end -}}

{{/* InferNex's words for selectors and interval, unless ours are given. */}}
{{- define "kvindex.aliasKeys" -}}
{{- $keys := dict -}}
{{- with .Values.app.serviceDiscovery.labelSelector -}}
  {{- $_ := set $keys "discovery_pod_selector" . -}}
  {{- $_ := set $keys "discovery_service_selector" . -}}
{{- end -}}
{{- with .Values.app.serviceDiscovery.refreshInterval -}}
  {{- $_ := set $keys "discovery_resync" (include "kvindex.duration" .) -}}
{{- end -}}
{{- toJson $keys -}}
{{- end -}}

{{- define "kvindex.duration" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ printf "%.0f" (float64 .) }}{{ end -}}
{{- end -}}

{{/* All keys of the file with their values. */}}
{{- define "kvindex.keys" -}}
{{- $config := .Values.config -}}
{{- if kindIs "bool" (get $config "discovery") -}}
  {{- $config = merge (dict "discovery" "off") $config -}}
{{- end -}}
{{- with get $config "discovery_resync" -}}
  {{- $config = merge (dict "discovery_resync" (include "kvindex.duration" .)) $config -}}
{{- end -}}
{{- if and (include "kvindex.discovers" .) (not (hasKey $config "discovery_pod_selector")) (not (hasKey $config "discovery_service_selector")) (not .Values.app.serviceDiscovery.labelSelector) -}}
  {{- /* What InferNex's engine charts put on every engine. */ -}}
  {{- $config = merge (dict "discovery_pod_selector" "openfuyao.com/engine") $config -}}
{{- end -}}
{{- if not .Values.cluster.enabled -}}
  {{- $config = merge (dict) $config (dict "snapshot_interval_s" 60) -}}
{{- end -}}
{{- merge (include "kvindex.ownKeys" . | fromJson) (include "kvindex.aliasKeys" . | fromJson) $config | toJson -}}
{{- end -}}

{{- define "kvindex.configFile" -}}
# Written by the chart from its values.
{{- range $key, $value := include "kvindex.keys" . | fromJson }}
{{ $key }} = {{ include "kvindex.toml" $value }}
{{- end }}
{{- range .Values.staticWorkers }}

[[workers]]
{{- range $key, $value := . }}
{{ $key }} = {{ include "kvindex.toml" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Changes when a key changes that a node only takes at its start. The keys left out here, and static workers, it takes as it runs. */}}
{{- define "kvindex.restartSum" -}}
{{- $keys := include "kvindex.keys" . | fromJson -}}
{{- $live := include "kvindex.liveKeys" . | fromJsonArray -}}
{{- range $key := keys $keys -}}
  {{- if or (has $key $live) (hasPrefix "discovery" $key) -}}
    {{- $_ := unset $keys $key -}}
  {{- end -}}
{{- end -}}
{{- toJson $keys | sha256sum -}}
{{- end -}}

{{/* Beside all of discovery. */}}
{{- define "kvindex.liveKeys" -}}
["drain_s", "log_filter", "snapshot_interval_s"]
{{- end -}}

{{/* What no schema can say: values that are right alone and wrong together. */}}
{{- define "kvindex.checkValues" -}}
{{- $v := .Values -}}
{{- $alias := $v.app.serviceDiscovery -}}
{{- if and $v.cluster.enabled (lt (int $v.replicaCount) (int $v.cluster.size)) -}}
  {{- fail (printf "replicaCount = %d is below cluster.size = %d: so many nodes would never meet, and no cluster be founded; raise replicaCount or lower cluster.size" (int $v.replicaCount) (int $v.cluster.size)) -}}
{{- end -}}
{{- if and (not $v.cluster.enabled) (ne (int $v.replicaCount) 1) -}}
  {{- fail (printf "replicaCount = %d without a cluster: nodes would not know of each other; set replicaCount to 1, or cluster.enabled to true" (int $v.replicaCount)) -}}
{{- end -}}
{{- range $key := list "discovery_pod_selector" "discovery_service_selector" -}}
  {{- if and $alias.labelSelector (hasKey $v.config $key) -}}
    {{- fail (printf "app.serviceDiscovery.labelSelector and config.%s are both set: keep one of them" $key) -}}
  {{- end -}}
{{- end -}}
{{- if and $alias.refreshInterval (hasKey $v.config "discovery_resync") -}}
  {{- fail "app.serviceDiscovery.refreshInterval and config.discovery_resync are both set: keep one of them" -}}
{{- end -}}
{{- if and (not (include "kvindex.discovers" .)) (or $alias.labelSelector $alias.refreshInterval) -}}
  {{- fail "app.serviceDiscovery needs config.discovery = kubernetes: set it, or leave app.serviceDiscovery out" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (or $v.tls.public.secretName $v.tls.peer.secretName) -}}
  {{- fail "tls.certManager makes the secrets: leave tls.public.secretName and tls.peer.secretName empty, or set tls.certManager.enabled to false" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) -}}
  {{- fail "tls.certManager.issuerRef.name is empty: name the Issuer or ClusterIssuer that signs" -}}
{{- end -}}
{{- if and $v.tls.public.clientCASecretName (not (include "kvindex.publicSecret" .)) -}}
  {{- fail "tls.public.clientCASecretName needs tls.public.secretName or tls.certManager.enabled: without a certificate of its own the port speaks no TLS" -}}
{{- end -}}
{{- if and $v.tls.public.clientCASecretName (eq $v.tls.public.clientAuth "require") (not $v.metrics.port) -}}
  {{- fail "tls.public.clientAuth = require needs metrics.port, such as 9592: the kubelet and Prometheus show no certificate, and that port asks for none" -}}
{{- end -}}
{{- if and $v.tls.peer.secretName (not $v.cluster.enabled) -}}
  {{- fail "tls.peer.secretName is for the nodes of a cluster: set cluster.enabled, or leave it empty" -}}
{{- end -}}
{{- if and (gt (int $v.metrics.port) 0) (or (eq (int $v.metrics.port) 9590) (eq (int $v.metrics.port) 9591)) -}}
  {{- fail (printf "metrics.port = %d is taken: 9590 is the public port, 9591 that of the peers" (int $v.metrics.port)) -}}
{{- end -}}
{{- if and $v.service.alias.enabled (eq $v.service.alias.name (include "kvindex.serviceName" .)) -}}
  {{- fail (printf "service.alias.name = %s is the Service's own name: give one of them another, or set service.port to the alias's port and service.alias.enabled to false" $v.service.alias.name) -}}
{{- end -}}
{{- end -}}
