{{- define "rvm.labels" -}}
app.kubernetes.io/name: rvm
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* An image of ours: (list $ "rvm-api") */}}
{{- define "rvm.image" -}}
{{- $top := index . 0 -}}
{{- $images := $top.Values.images -}}
{{- with $images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index . 1 }}:{{ $images.tag | default $top.Chart.AppVersion }}
{{- end -}}

{{/* A file of deploy/ with our namespace in place of the one that is written there: (list $ "files/api/rvm-api.yaml") */}}
{{- define "rvm.file" -}}
{{- $top := index . 0 -}}
{{- $namespace := printf "namespace: %s" $top.Release.Namespace -}}
{{- $text := $top.Files.Get (index . 1) -}}
{{- if not $text }}{{ fail (printf "the chart lacks %s" (index . 1)) }}{{ end -}}
{{- regexReplaceAll "(?m)namespace: rvm$" $text $namespace -}}
{{- end -}}
