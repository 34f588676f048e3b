{{/* The name of what the release makes. */}}
{{- define "eclitunnel.fullname" -}}
{{- if contains "eclitunnel" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-eclitunnel" (.Release.Name | trunc 29 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* The labels by which a component's pods are selected: (list $ "panel"). */}}
{{- define "eclitunnel.selector" -}}
app.kubernetes.io/name: eclitunnel
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of an object of a component: (list $ "panel"). */}}
{{- define "eclitunnel.labels" -}}
{{ include "eclitunnel.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "eclitunnel.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "eclitunnel.publicUrl" -}}
{{ required "panel.publicUrl is required: where people, agents and tunnel servers reach the panel" .Values.panel.publicUrl }}
{{- end -}}

{{/* What every container may do: nothing but its work. */}}
{{- define "eclitunnel.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* The user of a pod: its number. */}}
{{- define "eclitunnel.user" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/* Further settings: a map of variables. */}}
{{- define "eclitunnel.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "eclitunnel.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}
