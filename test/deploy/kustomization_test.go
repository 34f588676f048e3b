package deploy

import (
	"encoding/base64"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// kustomization is what is read here of kustomization.yaml. It has no other fields.
type kustomization struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Namespace  string
	Images     []image
	ConfigMaps []struct {
		Name     string
		Literals []string
	} `yaml:"configMapGenerator"`
	Resources []string
	Secrets   []struct {
		Name  string
		Files []string
	} `yaml:"secretGenerator"`
}

type image struct {
	Name    string
	NewName string `yaml:"newName"`
	NewTag  string `yaml:"newTag"`
}

func readKustomization(t *testing.T) (k kustomization) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "deploy", "kubernetes", "kustomization.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&k); err != nil {
		t.Fatal(err)
	}
	return k
}

// makeSecrets runs deploy/secrets.sh.
func makeSecrets(t *testing.T, dir string) map[string]string {
	t.Helper()
	run(t, ".", "sh", "deploy/secrets.sh", dir)
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = strings.TrimSpace(string(text))
	}
	return files
}

func TestSecrets_AreMadeOnceAndBelongTogether(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	made := makeSecrets(t, dir)
	if again := makeSecrets(t, dir); !maps.Equal(made, again) {
		t.Error("a second run replaced secrets")
	}
	if other := makeSecrets(t, filepath.Join(t.TempDir(), "secrets")); other["admin-password"] == made["admin-password"] || len(made["admin-password"]) < 12 {
		t.Error("the admin's password can be guessed")
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory's mode is %v, %v", info.Mode(), err)
	}
	if want := "postgres://eclitunnel:" + made["postgres-password"] + "@postgres/eclitunnel?sslmode=disable"; made["database-url"] != want {
		t.Errorf("the database's URL is %s", made["database-url"])
	}
	// Both Postgres have the name, the user and the database of that URL.
	compose := read(t, "deploy", "compose.yaml")
	postgres := read(t, "deploy", "kubernetes", "postgres.yaml")
	for _, want := range []string{"\n  postgres:\n", "POSTGRES_USER: eclitunnel\n", "POSTGRES_DB: eclitunnel\n"} {
		if !strings.Contains(compose, want) {
			t.Errorf("compose.yaml lacks %q", want)
		}
	}
	for _, want := range []string{"kind: Service\nmetadata:\n  name: postgres\n", "POSTGRES_USER, value: eclitunnel ", "POSTGRES_DB, value: eclitunnel "} {
		if !strings.Contains(postgres, want) {
			t.Errorf("postgres.yaml lacks %q", want)
		}
	}
	for _, file := range regexp.MustCompile(`file: secrets/(\S+) `).FindAllStringSubmatch(compose, -1) {
		if made[file[1]] == "" && !strings.Contains(compose, "> secrets/"+file[1]+"\n") {
			t.Errorf("nothing makes secrets/%s of compose.yaml", file[1])
		}
	}
}

func TestKustomization_BringsEverythingThatPodsReferTo(t *testing.T) {
	k := readKustomization(t)
	if k.Kind != "Kustomization" || k.Namespace != "eclitunnel" || !strings.Contains(read(t, "deploy", "kubernetes", "namespace.yaml"), "\n  name: "+k.Namespace+"\n") {
		t.Errorf("kind %s, namespace %s", k.Kind, k.Namespace)
	}
	entries, err := os.ReadDir(filepath.Join(root, "deploy", "kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); path.Ext(name) == ".yaml" && name != "kustomization.yaml" && !slices.Contains(k.Resources, name) {
			t.Errorf("%s is not applied", name)
		}
	}
	text := read(t, "deploy", "kubernetes", "kustomization.yaml")
	for _, image := range k.Images {
		name := image.NewName + ":" + image.NewTag
		if !regexp.MustCompile(`--target `+image.Name+` +-t `+regexp.QuoteMeta(name)+` `).MatchString(text) || !strings.Contains(text, "docker push "+name+"\n") {
			t.Errorf("no command builds and pushes %s:%s", image.NewName, image.NewTag)
		}
	}
	made := makeSecrets(t, filepath.Join(t.TempDir(), "secrets"))
	keys := map[string]bool{} // Of secrets and configuration, as NAME/KEY.
	for _, config := range k.ConfigMaps {
		for _, line := range config.Literals {
			key, _, _ := strings.Cut(line, "=")
			keys[config.Name+"/"+key] = true
		}
	}
	for _, secret := range k.Secrets {
		for _, file := range secret.Files {
			key, source, renamed := strings.Cut(file, "=")
			if !renamed {
				key, source = path.Base(file), file
			}
			keys[secret.Name+"/"+key] = true
			if made[strings.TrimPrefix(source, "secrets/")] == "" {
				t.Errorf("secrets.sh does not make %s", source)
			}
		}
	}
	// Each tunnel server has one.
	keys["eclitunnel-tunnel-server/token"] = true
	for file, kind := range workloads {
		checkReferences(t, file, objects(t, file)[kind].Spec.Template.Spec, k, keys)
	}
}

// checkReferences checks the images, keys and files that a pod's container refers to.
func checkReferences(t *testing.T, file string, pod pod, k kustomization, keys map[string]bool) {
	t.Helper()
	c := pod.Containers[0]
	known := slices.Contains(images(t), c.Image) && slices.ContainsFunc(k.Images, func(i image) bool { return i.Name == c.Image })
	if !known && !strings.HasPrefix(c.Image, "postgres:") {
		t.Errorf("%s runs %s, which the Dockerfile does not make or kustomization.yaml does not name", file, c.Image)
	}
	secrets := map[string]string{} // By the directory.
	for _, volume := range pod.Volumes {
		for _, mount := range c.VolumeMounts {
			if mount.Name == volume.Name && volume.Secret.Name != "" {
				secrets[mount.Path] = volume.Secret.Name
			}
		}
	}
	if len(secrets) == 0 {
		t.Errorf("%s mounts no secret", file)
	}
	for _, variable := range c.Env {
		if from := variable.ValueFrom.ConfigMap; from.Name != "" && !keys[from.Name+"/"+from.Key] {
			t.Errorf("%s: %s is from %s in %s, which is not there", file, variable.Name, from.Key, from.Name)
		}
		if strings.HasSuffix(variable.Name, "_FILE") && !keys[secrets[path.Dir(variable.Value)]+"/"+path.Base(variable.Value)] {
			t.Errorf("%s: %s is %s, which no secret has", file, variable.Name, variable.Value)
		}
	}
}

// TestKustomization_KubectlBuildsIt builds it with two tunnel servers, which are added as
// the comment of edge-1 says.
func TestKustomization_KubectlBuildsIt(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(t.TempDir(), "kubernetes")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "deploy", "kubernetes"))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "secrets")); err != nil {
		t.Fatal(err)
	}
	makeSecrets(t, filepath.Join(dir, "secrets"))
	nodes := []string{"edge-1", "edge-2"}
	for _, node := range nodes {
		addTunnelServer(t, dir, node)
	}
	built, err := exec.CommandContext(t.Context(), kubectl, "kustomize", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, built)
	}
	for _, image := range readKustomization(t).Images {
		if want := "image: " + image.NewName + ":" + image.NewTag + "\n"; !strings.Contains(string(built), want) {
			t.Errorf("the result lacks %q", want)
		}
	}
	objects := strings.Split(string(built), "\n---\n")
	for _, node := range nodes {
		checkTunnelServer(t, objects, node)
	}
}

func addTunnelServer(t *testing.T, dir, node string) {
	t.Helper()
	servers := filepath.Join(dir, "tunnel-servers")
	if err := os.MkdirAll(filepath.Join(servers, node), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, change := range map[string]func(string) string{
		filepath.Join(servers, node, "kustomization.yaml"): func(string) string {
			return strings.ReplaceAll(read(t, "deploy", "kubernetes", "tunnel-servers", "edge-1", "kustomization.yaml"), "edge-1", node)
		},
		filepath.Join(servers, node, "token"): func(string) string { return "token-of-" + node },
		filepath.Join(dir, "kustomization.yaml"): func(text string) string {
			return strings.Replace(text, "\nresources:\n", "\nresources:\n  - tunnel-servers/"+node+"\n", 1)
		},
	} {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// checkTunnelServer checks that a tunnel server runs on its node, selects its own pod, and
// has the Secret with its token, which nobody else has.
func checkTunnelServer(t *testing.T, objects []string, node string) {
	t.Helper()
	name := "eclitunnel-tunnel-server-" + node
	var readers int
	var secret string
	for _, object := range objects {
		if strings.Contains(object, "kind: Secret\n") && strings.Contains(object, base64.StdEncoding.EncodeToString([]byte("token-of-"+node))) {
			secret = regexp.MustCompile(`\n  name: (\S+)`).FindStringSubmatch(object)[1]
		}
	}
	if !strings.HasPrefix(secret, name+"-") {
		t.Fatalf("the token of %s is in the secret %q", node, secret)
	}
	for _, object := range objects {
		if strings.Contains(object, "secretName: "+secret+"\n") {
			readers++
		}
		if !strings.Contains(object, "\n  name: "+name+"\n") {
			continue
		}
		for _, want := range []string{
			"kind: StatefulSet\n", "kubernetes.io/hostname: " + node + "\n", "secretName: " + secret + "\n", "\n    matchLabels:\n",
			"\n      eclitunnel/node: " + node + "\n", "\n        eclitunnel/node: " + node + "\n", "name: eclitunnel-",
		} {
			if !strings.Contains(object, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, object)
			}
		}
	}
	if readers != 1 {
		t.Errorf("%d workloads read the secret of %s", readers, node)
	}
}
