package deploy

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestHelm builds the tool once: that takes longer than its use.
func TestHelm(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "helm")
	run(t, filepath.Join("tools", "helm"), "go", "build", "-ldflags=-s -w", "-o", tool, ".")
	for name, test := range map[string]func(*testing.T, string){
		"is what the manifests are":     helmIsWhatTheManifestsAre,
		"renders with other values":     helmRendersWithOtherValues,
		"refuses values that are wrong": helmRefusesWrongValues,
	} {
		t.Run(name, func(t *testing.T) { test(t, tool) })
	}
}

// helm lints and renders the chart with values, and returns the objects as kind/name, and
// the text. err has what is wrong with the chart or the values.
func helm(t *testing.T, tool, release string, values ...string) (map[string]object, string, error) {
	t.Helper()
	chart, err := filepath.Abs(filepath.Join(root, "deploy", "helm", "eclitunnel"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{chart, release, "games"}
	for i, text := range values {
		file := filepath.Join(t.TempDir(), string(rune('a'+i))+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, "", errors.New(stderr.String())
	}
	all := map[string]object{}
	for decoder := yaml.NewDecoder(strings.NewReader(stdout.String())); ; {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all, stdout.String(), nil
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, stdout.String())
		}
		if o.Kind != "" { // The notes are comments.
			all[o.Kind+"/"+o.Metadata.Name] = o
		}
	}
}

const (
	helmMinimal    = "panel: { publicUrl: https://panel.example.com }"
	helmEverything = `
image: { tag: 9.9.9, pullSecrets: [registry] }
panel: { trustedProxies: [10.0.0.0/8, "fd00::/8"], env: { ECLITUNNEL_AUDIT_RETENTION: 720h }, replicas: 2 }
tunnelServers: [{ name: edge-1 }, { name: edge-2, node: node-2.example.com, existingSecret: own }]
ingress: { enabled: true, className: nginx, annotations: { nginx.ingress.kubernetes.io/proxy-body-size: 1m }, tlsSecret: panel-tls }
serviceMonitor: { enabled: true, labels: { release: prometheus } }`
	helmOwnPostgres = "{ postgres: { enabled: false }, networkPolicy: { enabled: false }, panel: { adminEmail: \"\" } }"
)

func helmIsWhatTheManifestsAre(t *testing.T, tool string) {
	all, text, err := helm(t, tool, "eclitunnel", helmMinimal, helmEverything)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range maps.Keys(all) {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{
		"Deployment/eclitunnel-panel", "Ingress/eclitunnel-panel", "NetworkPolicy/eclitunnel-panel", "NetworkPolicy/eclitunnel-postgres",
		"PodDisruptionBudget/eclitunnel-panel", "Service/eclitunnel-metrics", "Service/eclitunnel-panel", "Service/postgres",
		"ServiceMonitor/eclitunnel-panel", "StatefulSet/eclitunnel-edge-1", "StatefulSet/eclitunnel-edge-2", "StatefulSet/eclitunnel-postgres",
	}
	if !slices.Equal(names, want) {
		t.Errorf("it makes %q", names)
	}
	for name, plain := range map[string]object{
		"Deployment/eclitunnel-panel":     objects(t, "panel.yaml")["Deployment"],
		"StatefulSet/eclitunnel-postgres": objects(t, "postgres.yaml")["StatefulSet"],
		"StatefulSet/eclitunnel-edge-1":   objects(t, "tunnel-server/tunnel-server.yaml")["StatefulSet"],
		"StatefulSet/eclitunnel-edge-2":   objects(t, "tunnel-server/tunnel-server.yaml")["StatefulSet"],
	} {
		checkWorkload(t, name, all[name])
		checkSame(t, name, all[name], plain)
	}
	panel := all["Deployment/eclitunnel-panel"].Spec.Template.Metadata.Labels
	for name, selected := range map[string]selector{
		"the budget":          all["PodDisruptionBudget/eclitunnel-panel"].Spec.Selector,
		"the Service":         all["Service/eclitunnel-panel"].Spec.Selector,
		"the Service metrics": all["Service/eclitunnel-metrics"].Spec.Selector,
		"the policy":          all["NetworkPolicy/eclitunnel-panel"].Spec.PodSelector,
	} {
		if !maps.Equal(selected.labels(), panel) {
			t.Errorf("%s selects %v, the pods are %v", name, selected.labels(), panel)
		}
	}
	for _, want := range []string{
		"image: \"registry.example.com/eclitunneld:9.9.9\"", "image: \"registry.example.com/eclitunnel:9.9.9\"",
		"kubernetes.io/hostname: \"edge-1\"", "kubernetes.io/hostname: \"node-2.example.com\"", "secretName: eclitunnel-edge-1,", "secretName: own,",
		"value: \"10.0.0.0/8,fd00::/8\"", "- host: \"panel.example.com\"", "exec deploy/eclitunnel-panel -- /usr/bin/eclitunneld device create",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %s", want)
		}
	}
}

// checkSame checks that a workload of the chart runs what that of the manifests runs: with
// its own settings in addition, and values in place of the ConfigMap's.
func checkSame(t *testing.T, name string, o, plain object) {
	t.Helper()
	got, want := o.Spec.Template.Spec.Containers[0], plain.Spec.Template.Spec.Containers[0]
	if o.Spec.Template.Spec.HostNetwork != plain.Spec.Template.Spec.HostNetwork {
		t.Errorf("%s has hostNetwork %t", name, o.Spec.Template.Spec.HostNetwork)
	}
	variables := map[string]string{}
	for _, variable := range got.Env {
		variables[variable.Name] = variable.Value
	}
	for _, variable := range want.Env {
		value, is := variables[variable.Name]
		if !is || variable.ValueFrom.ConfigMap.Name == "" && value != variable.Value {
			t.Errorf("%s: %s is %q, in the manifests %q", name, variable.Name, value, variable.Value)
		}
	}
	got.Env, want.Env, got.Image, want.Image = nil, nil, "", ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s has\n%+v\nand the manifests\n%+v", name, got, want)
	}
}

func helmRendersWithOtherValues(t *testing.T, tool string) {
	all, _, err := helm(t, tool, "games", helmMinimal, helmOwnPostgres)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 3 || all["Deployment/games-eclitunnel-panel"].Kind == "" {
		t.Errorf("it makes %v", slices.Sorted(maps.Keys(all)))
	}
	// What it refers to is what secrets.sh makes: the names, the keys, and the host of the URL.
	_, text, err := helm(t, tool, "eclitunnel", helmMinimal)
	if err != nil {
		t.Fatal(err)
	}
	made := makeSecrets(t, filepath.Join(t.TempDir(), "secrets"))
	for _, want := range []string{"/run/secrets/eclitunnel/database-url", "/run/secrets/eclitunnel/admin-password", "/run/secrets/postgres/password"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %s", want)
		}
	}
	if !strings.Contains(made["database-url"], "@postgres/") || !strings.Contains(text, "  name: postgres\n") {
		t.Errorf("Postgres is not at the host of %s", made["database-url"])
	}
	if strings.Contains(text, "kind: Secret\n") || regexp.MustCompile(`(?i)password: *\S`).MatchString(read(t, "deploy", "helm", "eclitunnel", "values.yaml")) {
		t.Error("the chart has secrets of its own")
	}
}

func helmRefusesWrongValues(t *testing.T, tool string) {
	for values, words := range map[string]string{
		"":                                "panel.publicUrl is required",
		"panel: { publicUrl: panel }":     "/panel/publicUrl",
		"panel: { publicURL: https://x }": "'publicURL' not allowed",
		"panel: { replicas: 0 }":          "/panel/replicas",
		"panel: { env: { ECLITUNNEL_ADMIN_PASSWORD: x } }":           "invalid propertyName",
		"tunnelServers: [{ node: edge-1 }]":                          "missing property 'name'",
		"tunnelServers: [{ name: Edge_1 }]":                          "/tunnelServers/0/name",
		"image: { pullPolicy: Sometimes }":                           "/image/pullPolicy",
		"{ panel: { publicUrl: https://x, resources: { cpu: 1 } } }": "unknown field",
	} {
		if _, _, err := helm(t, tool, "eclitunnel", values); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", values, err)
		}
	}
}
