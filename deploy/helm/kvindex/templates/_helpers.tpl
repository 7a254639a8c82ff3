{{/* Names and labels, and what several objects must agree on. */}}

{{- define "kvindex.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters: pods' names get a number, Services a suffix, and a label ends at 63. */}}
{{- define "kvindex.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "kvindex.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kvindex.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kvindex.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kvindex.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kvindex.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "kvindex.selectorLabels" . }}
{{- end -}}

{{/* Name, namespace and labels of an object; "suffix" tells it from the others. */}}
{{- define "kvindex.metadata" -}}
name: {{ include "kvindex.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "kvindex.labels" .root | nindent 2 }}
{{- end -}}

{{- define "kvindex.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kvindex.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kvindex.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "kvindex.serviceName" -}}
{{- default (include "kvindex.fullname" .) .Values.service.name -}}
{{- end -}}

{{- define "kvindex.peersName" -}}
{{- include "kvindex.fullname" . -}}-peers
{{- end -}}

{{/* Resolved through the search list of a pod, so that the cluster's domain need not be known. */}}
{{- define "kvindex.peersHost" -}}
{{ include "kvindex.peersName" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "kvindex.publicSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "kvindex.fullname" . }}-public-tls
{{- else -}}
{{ .Values.tls.public.secretName }}
{{- end -}}
{{- end -}}

{{- define "kvindex.peerSecret" -}}
{{- if and .Values.tls.certManager.enabled .Values.cluster.enabled -}}
{{ include "kvindex.fullname" . }}-peer-tls
{{- else -}}
{{ .Values.tls.peer.secretName }}
{{- end -}}
{{- end -}}

{{- define "kvindex.discovers" -}}
{{- if eq (toString (get .Values.config "discovery")) "kubernetes" }}true{{ end -}}
{{- end -}}

{{/* Where the kubelet and Prometheus find /metrics. */}}
{{- define "kvindex.metricsPort" -}}
{{- if .Values.metrics.port }}metrics{{ else }}http{{ end -}}
{{- end -}}

{{/* A value of the file kvindex.toml. Numbers of a values file may come as floats, which TOML would tell from integers. */}}
{{- define "kvindex.toml" -}}
{{- if kindIs "string" . -}}{{ . | quote }}
{{- else if kindIs "float64" . -}}{{ if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- else if kindIs "slice" . -}}[{{ range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "kvindex.toml" $item }}{{ end }}]
{{- else if kindIs "map" . -}}{ {{ $first := true }}{{ range $key, $value := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ $key | quote }} = {{ include "kvindex.toml" $value }}{{ end }} }
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}
