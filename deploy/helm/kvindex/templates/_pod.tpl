{{/* Parts of the pod that would make the StatefulSet hard to read. */}}

{{/* The kubelet shows no client certificate, so where one is required it asks on the port of the metrics. */}}
{{- define "kvindex.probe" -}}
httpGet:
  path: {{ .path }}
  port: {{ include "kvindex.probePort" .root }}
  {{- if include "kvindex.publicSecret" .root }}
  scheme: HTTPS
  {{- end }}
{{- end -}}

{{- define "kvindex.probePort" -}}
{{- if and .Values.tls.public.clientCASecretName (eq .Values.tls.public.clientAuth "require") -}}metrics{{ else }}http{{ end -}}
{{- end -}}

{{- define "kvindex.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy .Values.affinity -}}
{{- if ne .Values.podAntiAffinity "none" -}}
  {{- $affinity = mergeOverwrite (include "kvindex.antiAffinity" . | fromYaml) $affinity -}}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kvindex.selectorLabels" . | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "kvindex.antiAffinity" -}}
podAntiAffinity:
  {{- if eq .Values.podAntiAffinity "hard" }}
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "kvindex.selectorLabels" . | nindent 10 }}
  {{- else }}
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "kvindex.selectorLabels" . | nindent 12 }}
  {{- end }}
{{- end -}}
