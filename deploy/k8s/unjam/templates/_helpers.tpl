{{- define "unjam.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "unjam.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* labels of all objects; of one part: (dict "top" . "part" "api") */}}
{{- define "unjam.labels" -}}
{{ include "unjam.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "unjam.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "unjam.secret" -}}
{{ default (include "unjam.fullname" .) .Values.secrets.existingSecret }}
{{- end }}

{{- define "unjam.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "unjam.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* The API's name in the cluster, by which KEDA calls it. */}}
{{- define "unjam.apiHost" -}}
{{ include "unjam.fullname" . }}-api.{{ .Release.Namespace }}.svc
{{- end }}

{{/* All names under which the API may be called; probes and Prometheus use addresses. */}}
{{- define "unjam.allowedHosts" -}}
{{- $api := printf "%s-api" (include "unjam.fullname" .) -}}
{{- $space := printf "%s.%s" $api .Release.Namespace -}}
{{- $hosts := list $api $space (printf "%s.svc" $space) (printf "%s.svc.%s" $space .Values.clusterDomain) -}}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end -}}
{{- concat $hosts .Values.api.allowedHosts | join "," -}}
{{- end }}

{{- define "unjam.redisUrl" -}}
{{- if .Values.redis.url -}}
{{ .Values.redis.url }}
{{- else if .Values.trial.valkey.enabled -}}
redis://{{ include "unjam.fullname" . }}-valkey:6379/5
{{- end -}}
{{- end }}

{{- define "unjam.chromaUrl" -}}
{{- if .Values.chroma.url -}}
{{ .Values.chroma.url }}
{{- else if .Values.trial.chroma.enabled -}}
http://{{ include "unjam.fullname" . }}-chroma:8000
{{- end -}}
{{- end }}

{{- define "unjam.storageUrl" -}}
{{- if .Values.storage.url -}}
{{ .Values.storage.url }}
{{- else if .Values.storage.existingClaim -}}
file:///originals
{{- end -}}
{{- end }}

{{/* Documents in flight over all workers: each has room for 32 at least. */}}
{{- define "unjam.maxConcurrent" -}}
{{- $workers := ternary .Values.autoscaling.maxWorkers .Values.worker.replicas .Values.autoscaling.enabled -}}
{{ min 10000 (max 50 (mul 32 $workers)) }}
{{- end }}

{{/* What would not work is told before anything is installed. */}}
{{- define "unjam.check" -}}
{{- $given := .Values.secrets.values -}}
{{- if and .Values.secrets.existingSecret $given }}
{{- fail "secrets.existingSecret and secrets.values exclude each other" }}
{{- end }}
{{- if not .Values.secrets.existingSecret }}
{{- range $name := list "RAG_API_TOKEN" "ADMIN_TOKEN" "RAG_DATABASE_URL" }}
{{- if not (index $given $name) }}
{{- fail (printf "set secrets.existingSecret, or secrets.values.%s" $name) }}
{{- end }}
{{- end }}
{{- if not (or (include "unjam.redisUrl" .) (index $given "RAG_REDIS_URL")) }}
{{- fail "set redis.url, secrets.values.RAG_REDIS_URL, or trial.valkey.enabled" }}
{{- end }}
{{- $another := or (index .Values.config "RAG_VECTOR_STORE_URL") (index $given "RAG_VECTOR_STORE_URL") }}
{{- if not (or $another (include "unjam.chromaUrl" .) (index $given "RAG_CHROMA_URL")) }}
{{- fail "set chroma.url, secrets.values.RAG_CHROMA_URL, trial.chroma.enabled, or RAG_VECTOR_STORE_URL in config" }}
{{- end }}
{{- end }}
{{- if and (index $given "RAG_WEBHOOK_URL") (not (index $given "RAG_WEBHOOK_SECRET")) }}
{{- fail "secrets.values.RAG_WEBHOOK_URL needs RAG_WEBHOOK_SECRET beside it: each watchdog would make its own" }}
{{- end }}
{{- if and .Values.storage.url .Values.storage.existingClaim }}
{{- fail "storage.url and storage.existingClaim exclude each other" }}
{{- end }}
{{- if not (include "unjam.storageUrl" .) }}
{{- fail "set storage.url (s3://bucket/prefix) or storage.existingClaim (a ReadWriteMany volume)" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.enabled needs ingress.host" }}
{{- end }}
{{- end }}

{{/* (dict "top" . "part" "api" "values" .Values.api "command" (list …) "beat" true): the pod of a part,
which may add ports and probes of its own below it. */}}
{{- define "unjam.pod" -}}
{{- $top := .top -}}
metadata:
  labels:
    {{- include "unjam.labels" $top | nindent 4 }}
    app.kubernetes.io/component: {{ .part }}
  annotations:
    checksum/config: {{ include (print $top.Template.BasePath "/configmap.yaml") $top | sha256sum }}
    {{- if not $top.Values.secrets.existingSecret }}
    checksum/secret: {{ include (print $top.Template.BasePath "/secret.yaml") $top | sha256sum }}
    {{- end }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "unjam.serviceAccount" $top }}
  automountServiceAccountToken: false
  # Variables like RAG_API_PORT that a Service of that name would bring are nobody's wish.
  enableServiceLinks: false
  {{- with $top.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "unjam.selector" $top | nindent 10 }}
          app.kubernetes.io/component: {{ .part }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .part }}
      image: {{ include "unjam.image" $top | quote }}
      imagePullPolicy: {{ $top.Values.image.pullPolicy }}
      args: {{ toJson .command }}
      envFrom:
        - configMapRef:
            name: {{ include "unjam.fullname" $top }}
        {{- with $top.Values.extraEnvFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or .beat $top.Values.extraEnv }}
      env:
        {{- if .beat }}
        - name: RAG_BEAT_FILE
          value: /tmp/unjam/beat
        {{- end }}
        {{- with $top.Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- if .beat }}
      # The file's age only: an outage of Redis, ledger or Chroma must not restart the workers.
      startupProbe:
        exec: { command: [unjam-healthy] }
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        exec: { command: [unjam-healthy] }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      {{- else }}
      # Ready means that it answers. /readyz would take all replicas away at once while a thing that they
      # share is away, although they still take documents (or answer 503 with Retry-After).
      # Ten minutes: it answers from the moment that the ledger is there.
      startupProbe:
        httpGet: { path: /healthz, port: http }
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 300
      livenessProbe:
        httpGet: { path: /healthz, port: http }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: { path: /healthz, port: http }
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      lifecycle:
        preStop:
          exec: { command: [sleep, "5"] }
      ports:
        - { name: http, containerPort: 8002 }
        - { name: dashboard, containerPort: 9181 }
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        {{- include "unjam.containerSecurity" $top | nindent 8 }}
      volumeMounts:
        - { name: data, mountPath: /data }
        - { name: tmp, mountPath: /tmp }
        - { name: secrets, mountPath: /run/secrets/unjam, readOnly: true }
        {{- if $top.Values.storage.existingClaim }}
        - { name: originals, mountPath: /originals }
        {{- end }}
  volumes:
    - name: data
      emptyDir: { sizeLimit: {{ $top.Values.data.sizeLimit }} }
    - name: tmp
      emptyDir: { sizeLimit: 1Gi }
    - name: secrets
      secret:
        secretName: {{ include "unjam.secret" $top }}
        defaultMode: 0440
    {{- if $top.Values.storage.existingClaim }}
    - name: originals
      persistentVolumeClaim: { claimName: {{ $top.Values.storage.existingClaim }} }
    {{- end }}
{{- end }}

{{- define "unjam.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
