{{- define "autoencoder.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Tag of the image: its device, unless a value names another. */}}
{{- define "autoencoder.tag" -}}
{{- .Values.image.tag | default (ternary "cuda" "cpu" .Values.gpu.enabled) -}}
{{- end -}}

{{- define "autoencoder.labels" -}}
{{ include "autoencoder.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Name of the Secret of the API keys; empty without keys. */}}
{{- define "autoencoder.keys" -}}
{{- if .Values.apiKeys.existingSecret -}}
{{- .Values.apiKeys.existingSecret -}}
{{- else if .Values.apiKeys.entries -}}
{{- .Release.Name -}}-keys
{{- end -}}
{{- end -}}

{{- define "autoencoder.serviceAccount" -}}
{{- .Values.serviceAccount.name | default .Release.Name -}}
{{- end -}}

{{/* Variables that other values set, by name. */}}
{{- define "autoencoder.variables" -}}
AE_HOST: "0.0.0.0"
AE_PORT: {{ .Values.service.port | quote }}
AE_DEVICE: {{ ternary "cuda" "cpu" .Values.gpu.enabled }}
AE_MODELS: {{ .Values.models.store.url | default .Values.models.path | quote }}
AE_MODEL_CACHE: /var/cache/autoencoder/models
AE_TENSORRT_CACHE: /var/cache/autoencoder/tensorrt
AE_OPEN_ACCESS: {{ .Values.openAccess | quote }}
AE_GRACE_PERIOD: {{ .Values.gracePeriodSeconds | quote }}
{{- if include "autoencoder.keys" . }}
AE_API_KEYS_FILE: /etc/autoencoder/keys/keys.json
{{- end }}
{{- if .Values.grpc.enabled }}
AE_GRPC_PORT: {{ .Values.grpc.port | quote }}
{{- end }}
{{- if .Values.tls.secret }}
AE_TLS_CERTIFICATE: /etc/autoencoder/tls/tls.crt
AE_TLS_KEY: /etc/autoencoder/tls/tls.key
{{- end }}
{{- end -}}

{{/* Values by the settings that only they may set. */}}
{{- define "autoencoder.reserved" -}}
AE_HOST: service
AE_PORT: service.port
AE_UNIX_SOCKET: service
AE_DEVICE: gpu.enabled
AE_MODELS: models
AE_MODEL_CACHE: models.store
AE_TENSORRT_CACHE: gpu
AE_OPEN_ACCESS: openAccess
AE_API_KEYS: apiKeys
AE_API_KEYS_FILE: apiKeys
AE_GRACE_PERIOD: gracePeriodSeconds
AE_GRPC_PORT: grpc
AE_TLS_CERTIFICATE: tls.secret
AE_TLS_KEY: tls.secret
{{- end -}}

{{/* Fails, with the fix, on values that contradict each other. */}}
{{- define "autoencoder.check" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) -}}
{{- fail (printf "release name %q names no Service: use letters, digits and hyphens, a letter first"
  .Release.Name) -}}
{{- end -}}
{{- $keys := include "autoencoder.keys" . -}}
{{- if and .Values.apiKeys.existingSecret .Values.apiKeys.entries -}}
{{- fail "apiKeys.existingSecret and apiKeys.entries are both set: set one" -}}
{{- end -}}
{{- if and $keys .Values.openAccess -}}
{{- fail "openAccess is true, but API keys are set: remove one of them" -}}
{{- end -}}
{{- if not (or $keys .Values.openAccess) -}}
{{- fail (cat "nothing says who may send requests: set apiKeys.existingSecret or apiKeys.entries,"
  "or openAccess=true if everyone who reaches the service may") -}}
{{- end -}}
{{- if and (eq .Values.models.source "volume") (not .Values.models.volume) -}}
{{- fail (cat "models.source is volume, but models.volume is empty: set it, for example to"
  "persistentVolumeClaim: {claimName: models}") -}}
{{- end -}}
{{- if and (ne .Values.models.source "volume") .Values.models.volume -}}
{{- fail (printf "models.volume is set, but models.source is %s: set it to volume"
  .Values.models.source) -}}
{{- end -}}
{{- if ne (eq .Values.models.source "store") (ne .Values.models.store.url "") -}}
{{- fail (printf "models.source is %s, but models.store.url is %q: a store needs both"
  .Values.models.source .Values.models.store.url) -}}
{{- end -}}
{{- if and .Values.grpc.enabled (eq (int .Values.grpc.port) (int .Values.service.port)) -}}
{{- fail (printf "grpc.port and service.port are both %v: choose another" .Values.grpc.port) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled is true, but ingress.host is empty: set it" -}}
{{- end -}}
{{- $exposed := or .Values.ingress.enabled (ne .Values.service.type "ClusterIP") -}}
{{- if and $exposed .Values.networkPolicy.enabled (not .Values.networkPolicy.from) -}}
{{- fail (printf (cat "networkPolicy.from is empty, so that only Pods of the namespace may connect,"
  "but %s: add the clients, such as the namespace of the ingress controller or an ipBlock")
  (ternary "ingress.enabled is true" (printf "service.type is %s" .Values.service.type)
  .Values.ingress.enabled)) -}}
{{- end -}}
{{- $workers := get .Values.settings "AE_WORKERS" | default 1 | toString -}}
{{- if and .Values.gpu.enabled (not (has $workers (list "1" "auto"))) -}}
{{- fail (printf "settings.AE_WORKERS is %s, but one process owns a GPU: set it to 1 or auto"
  $workers) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail (cat "autoscaling.enabled is true, but resources.requests.cpu is missing: set it, because"
  "autoscaling.cpuUtilization is a share of it") -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas: lower it" -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor $keys (not .Values.monitoring.keySecret) -}}
{{- fail (cat "monitoring.serviceMonitor is true, but Prometheus has no API key: set"
  "monitoring.keySecret") -}}
{{- end -}}
{{- $reserved := include "autoencoder.reserved" . | fromYaml -}}
{{- range $name := keys .Values.settings -}}
{{- with get $reserved $name -}}
{{- fail (printf "settings.%s is not to be set: use %s" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
