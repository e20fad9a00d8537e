{{- define "vm.labels" -}}
app.kubernetes.io/name: vm
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What keeps the web console's objects apart from the machine's. */}}
{{- define "vm.console" -}}
{{ .Release.Name }}-console
{{- end -}}
