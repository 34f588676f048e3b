package deploy

import (
	"errors"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel"
)

// object is what is read here of a Kubernetes object.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		Claims []struct {
			Metadata struct{ Name string }
		} `yaml:"volumeClaimTemplates"`
		Replicas    int
		Selector    selector
		PodSelector selector `yaml:"podSelector"`
		Ports       []struct {
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

// selector is labels or, where the kind's API has it so, labels below matchLabels.
type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
	Bare        map[string]string `yaml:",inline"`
}

func (s selector) labels() map[string]string {
	if s.MatchLabels != nil {
		return s.MatchLabels
	}
	return s.Bare
}

type pod struct {
	HostNetwork     bool `yaml:"hostNetwork"`
	SecurityContext struct {
		RunAsNonRoot bool `yaml:"runAsNonRoot"`
	} `yaml:"securityContext"`
	Containers []container
	Volumes    []struct {
		Name   string
		Secret struct {
			Name string `yaml:"secretName"`
		}
	}
}

type container struct {
	Image string
	Args  []string
	Env   []struct {
		Name, Value string
		ValueFrom   struct {
			ConfigMap struct{ Name, Key string } `yaml:"configMapKeyRef"`
		} `yaml:"valueFrom"`
	}
	Ports          []struct{ Name string }
	LivenessProbe  probe `yaml:"livenessProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
	StartupProbe   probe `yaml:"startupProbe"`
	Security       struct {
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name string
		Path string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// objects reads a file of Kubernetes objects, by their kind.
func objects(t *testing.T, file string) map[string]object {
	t.Helper()
	all := map[string]object{}
	for decoder := yaml.NewDecoder(strings.NewReader(read(t, "deploy", "kubernetes", filepath.FromSlash(file)))); ; {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil || o.Kind == "" || o.APIVersion == "" {
			t.Fatalf("%s: %+v, %v", file, o, err)
		}
		all[o.Kind] = o
	}
}

// images are the stages of the Dockerfile that are given a name and run something.
func images(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, stage := range strings.Split(read(t, "deploy", "Dockerfile"), "\nFROM ") {
		head, body, _ := strings.Cut(stage, "\n")
		if _, name, ok := strings.Cut(head, " AS "); ok && strings.Contains(body, "\nENTRYPOINT ") {
			names = append(names, name)
		}
	}
	return names
}

// workloads are the files of what runs, with its kind.
var workloads = map[string]string{"panel.yaml": "Deployment", "tunnel-server/tunnel-server.yaml": "StatefulSet", "postgres.yaml": "StatefulSet"}

// volumes are the names of a workload's volumes.
func volumes(workload object) (names []string) {
	for _, volume := range workload.Spec.Template.Spec.Volumes {
		names = append(names, volume.Name)
	}
	for _, claim := range workload.Spec.Claims {
		names = append(names, claim.Metadata.Name)
	}
	return names
}

func TestKubernetes_PodsAreConfinedAndWhole(t *testing.T) {
	for file, kind := range workloads {
		checkWorkload(t, file, objects(t, file)[kind])
	}
	if !objects(t, "tunnel-server/tunnel-server.yaml")["StatefulSet"].Spec.Template.Spec.HostNetwork {
		t.Error("a tunnel server has not its node's network")
	}
}

// checkWorkload checks that a workload's pod may do nothing but its work, and has what it
// refers to.
func checkWorkload(t *testing.T, file string, workload object) {
	t.Helper()
	pod := workload.Spec.Template.Spec
	if len(pod.Containers) != 1 || !pod.SecurityContext.RunAsNonRoot {
		t.Fatalf("%s: %d containers, runAsNonRoot %t", file, len(pod.Containers), pod.SecurityContext.RunAsNonRoot)
	}
	c := pod.Containers[0]
	escalates := c.Security.AllowPrivilegeEscalation
	if !c.Security.ReadOnlyRootFilesystem || !slices.Equal(c.Security.Capabilities.Drop, []string{"ALL"}) || escalates == nil || *escalates {
		t.Errorf("%s: security context %+v", file, c.Security)
	}
	for _, mount := range c.VolumeMounts {
		if !slices.Contains(volumes(workload), mount.Name) {
			t.Errorf("%s mounts %s, which is no volume", file, mount.Name)
		}
	}
	if c.LivenessProbe.HTTPGet.Path == "" && !strings.Contains(file, "postgres") {
		t.Errorf("%s has no liveness probe", file)
	}
	if !maps.Equal(workload.Spec.Selector.labels(), workload.Spec.Template.Metadata.Labels) {
		t.Errorf("%s selects other pods than it makes", file)
	}
}

func TestKubernetes_PanelIsProbedAndReachedWhereItListens(t *testing.T) {
	all := objects(t, "panel.yaml")
	deployment := all["Deployment"]
	if deployment.Spec.Replicas < 2 {
		t.Errorf("%d replicas", deployment.Spec.Replicas)
	}
	made := deployment.Spec.Template.Metadata.Labels
	for kind, selected := range map[string]selector{
		"PodDisruptionBudget": all["PodDisruptionBudget"].Spec.Selector,
		"Service":             all["Service"].Spec.Selector,
		"NetworkPolicy":       all["NetworkPolicy"].Spec.PodSelector,
	} {
		if labels := selected.labels(); !maps.Equal(labels, made) {
			t.Errorf("the %s selects %v, the pods are %v", kind, labels, made)
		}
	}
	panel := deployment.Spec.Template.Spec.Containers[0]
	named := map[string]bool{}
	for _, port := range panel.Ports {
		named[port.Name] = true
	}
	for _, port := range all["Service"].Spec.Ports {
		if !named[port.TargetPort] || port.TargetPort == "metrics" {
			t.Errorf("the Service leads to %q", port.TargetPort)
		}
	}
	for name, p := range map[string]probe{"startup": panel.StartupProbe, "liveness": panel.LivenessProbe, "readiness": panel.ReadinessProbe} {
		if !named[p.HTTPGet.Port] || !strings.Contains(string(eclitunnel.OpenAPI), "\n  "+p.HTTPGet.Path+":\n") {
			t.Errorf("%s probe asks %+v", name, p.HTTPGet)
		}
	}
	if panel.LivenessProbe == panel.ReadinessProbe {
		t.Error("a panel without its database would be restarted")
	}
}

func TestCompose_KeepsItsSecretsOutOfImagesAndTheRepository(t *testing.T) {
	for _, file := range []string{".dockerignore", ".gitignore"} {
		if !regexp.MustCompile(`(?m)^/?deploy/secrets/?$`).MatchString(read(t, file)) {
			t.Errorf("%s lets deploy/secrets in", file)
		}
	}
}

func TestCompose_NamesWhatThereIs(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Image string
			Build struct {
				Context, Dockerfile, Target string
			}
			DependsOn map[string]any `yaml:"depends_on"`
			Secrets   []string
			Volumes   []string
			Env       map[string]string `yaml:"environment"`
		}
		Secrets  map[string]struct{ File string }
		Volumes  map[string]any
		Networks map[string]struct {
			IPAM struct{ Config []struct{ Gateway string } }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy", "compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	gateway := compose.Networks["default"].IPAM.Config[0].Gateway
	if proxies := compose.Services["panel"].Env["ECLITUNNEL_TRUSTED_PROXIES"]; proxies != "${TRUSTED_PROXIES:-"+gateway+"}" {
		t.Errorf("the panel trusts %s, and a proxy on this machine comes from %s", proxies, gateway)
	}
	mounted := regexp.MustCompile(`^/run/secrets/(.+)$`)
	for name, service := range compose.Services {
		if service.Image == "" && !slices.Contains(images(t), service.Build.Target) {
			t.Errorf("%s is built from the stage %q", name, service.Build.Target)
		}
		if service.Image == "" {
			read(t, "deploy", service.Build.Context, filepath.FromSlash(service.Build.Dockerfile))
		}
		for other := range service.DependsOn {
			if _, ok := compose.Services[other]; !ok {
				t.Errorf("%s depends on %s", name, other)
			}
		}
		for _, secret := range service.Secrets {
			if compose.Secrets[secret].File == "" {
				t.Errorf("%s has the secret %s, which is none", name, secret)
			}
		}
		for variable, value := range service.Env {
			if path := mounted.FindStringSubmatch(value); path != nil && !slices.Contains(service.Secrets, path[1]) {
				t.Errorf("%s: %s is %s, which is not mounted", name, variable, value)
			}
		}
		for _, volume := range service.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if _, ok := compose.Volumes[source]; !ok {
				t.Errorf("%s mounts %s, which is no volume", name, source)
			}
		}
	}
}
