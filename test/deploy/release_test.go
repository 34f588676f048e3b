package deploy

import (
	"archive/tar"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// makeRelease makes a release of the agent for one platform from a tree, and returns its
// directory.
func makeRelease(t *testing.T, program, tree string, flags ...string) (dir, printed string, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dist")
	cmd := exec.CommandContext(t.Context(), program, append([]string{
		"-version", "1.2.3", "-commit", "abcdef123456", "-agents", "linux/amd64", "-out", dir,
	}, flags...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1767225600")
	out, err := cmd.CombinedOutput()
	return dir, string(out), err
}

func releaseProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "release")
	run(t, "", "go", "build", "-o", program, "./scripts/release")
	return program
}

// copyTree copies what a release of the agent is made of to another directory, with other
// times.
func copyTree(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	for _, part := range []string{"go.mod", "go.sum", "LICENSE", "clients", "deploy", "gen", "internal", "relay", "tools"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && slices.Contains([]string{"node_modules", "console", "ts", "secrets"}, entry.Name()) {
				return filepath.SkipDir
			}
			name, err := filepath.Rel(root, path)
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			copied := filepath.Join(to, name)
			return errors.Join(os.MkdirAll(filepath.Dir(copied), 0o755), os.WriteFile(copied, text, 0o600))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// signingKey writes a key as openssl does, and returns its file and its public half.
func signingKey(t *testing.T) (string, ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "release.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, public
}

// The checksums are those of every other file, so that releases with the same ones are the
// same.
func TestRelease_IsTheSameFromAnotherDirectoryAndAtAnotherTime(t *testing.T) {
	program := releaseProgram(t)
	key, public := signingKey(t)
	var sums [2]string
	for i, tree := range []string{root, copyTree(t)} {
		dir, printed, err := makeRelease(t, program, tree, "-key", key)
		if err != nil {
			t.Fatal(err, printed)
		}
		text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		signature, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS.sig"))
		if err != nil || !ed25519.Verify(public, text, signature) {
			t.Errorf("the signature is wrong: %v", err)
		}
		sums[i] = string(text)
		if i == 0 {
			checkContent(t, dir)
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ:\n%s\n%s", sums[0], sums[1])
	}
	for _, name := range []string{"_linux_amd64.tar.gz", "_linux_amd64.deb", "_linux_amd64.rpm", ".cdx.json"} {
		if !strings.Contains(sums[0], "  eclitunnel_1.2.3"+name+"\n") {
			t.Errorf("there is no eclitunnel_1.2.3%s:\n%s", name, sums[0])
		}
	}
}

// checkContent checks what is in a release: the program with its version and mode, and the
// modules that it was made of.
func checkContent(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "eclitunnel_1.2.3_linux_amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	compressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	archive := tar.NewReader(compressed)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if header.Uid != 0 || header.Uname != "" || header.ModTime.Unix() != 1767225600 {
			t.Errorf("%s is of %d %q at %s", header.Name, header.Uid, header.Uname, header.ModTime)
		}
		if header.Name == "eclitunnel" && header.Mode != 0o755 {
			t.Errorf("the program has the mode %o", header.Mode)
		}
	}
	if want := []string{"LICENSE", "eclitunnel", "systemd/eclitunnel.service", "systemd/eclitunnel.sysusers"}; !slices.Equal(names, want) {
		t.Errorf("the archive has %q, want %q", names, want)
	}
	var bill struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	text, err := os.ReadFile(filepath.Join(dir, "eclitunnel_1.2.3.cdx.json"))
	if err != nil || json.Unmarshal(text, &bill) != nil || bill.Format != "CycloneDX" {
		t.Fatalf("the bill of materials: %v\n%s", err, text)
	}
	for _, want := range []string{"std", "github.com/alecthomas/kong"} {
		found := slices.IndexFunc(bill.Components, func(c struct{ Name, Version string }) bool { return c.Name == want })
		if found < 0 || bill.Components[found].Version == "" {
			t.Errorf("the bill of materials does not have %s", want)
		}
	}
}

func TestRelease_SaysWhatIsWrong(t *testing.T) {
	program := releaseProgram(t)
	plain := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(plain, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, flags := range map[string][]string{
		"there is no release for plan9/amd64": {"-platforms", "plan9/amd64"},
		`"linux" is no platform`:              {"-platforms", "linux"},
		"holds no private key in PEM":         {"-key", plain},
		"no such file":                        {"-key", plain + ".pem"},
		"holds no public key in PEM":          {"-public-key", plain},
		"leave out RELEASE_PUBLIC_KEY":        {"-key", plain, "-public-key", plain},
	} {
		dir, printed, err := makeRelease(t, program, root, flags...)
		if err == nil || !strings.Contains(printed, want) {
			t.Errorf("%q: %v, %s", flags, err, printed)
		}
		if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) > 0 {
			t.Errorf("%q: it leaves %v", flags, left)
		}
	}
}

// Both recipes make the same images, whatever their programs come from.
func TestReleaseImages_AreThoseOfTheOtherRecipe(t *testing.T) {
	copies := regexp.MustCompile(`(?m)^COPY .*\n`)
	comments := regexp.MustCompile(`(?m)^#.*\n`)
	stage := func(file, name string) string {
		_, rest, _ := strings.Cut(read(t, "deploy", file), "\nFROM base AS "+name+"\n")
		body, _, _ := strings.Cut(rest, "\nFROM ")
		return strings.TrimSpace(comments.ReplaceAllString(copies.ReplaceAllString(body, ""), ""))
	}
	for _, name := range images(t) {
		if source, release := stage("Dockerfile", name), stage("Dockerfile.release", name); source == "" || source != release {
			t.Errorf("%s from sources:\n%s\nof a release:\n%s", name, source, release)
		}
	}
}

// They run on whatever shell a machine has.
func TestScripts_ArePOSIX(t *testing.T) {
	scripts := []string{filepath.Join("server", "internal", "web", "static", "install.sh")}
	packaged, err := filepath.Glob(filepath.Join(root, "deploy", "packages", "*.sh"))
	if err != nil || len(packaged) == 0 {
		t.Fatal(packaged, err)
	}
	for _, script := range packaged {
		scripts = append(scripts, filepath.Join("deploy", "packages", filepath.Base(script)))
	}
	run(t, "", "shellcheck", append([]string{"--shell=sh"}, scripts...)...)
}
