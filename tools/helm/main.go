// Command helm lints and renders a chart as the program helm does, without a cluster, and
// reads what it has rendered as a cluster would: a field that a kind does not have is an
// error. It prints the manifests.
//
//	helm CHART RELEASE NAMESPACE [VALUES...]
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: helm CHART RELEASE NAMESPACE [VALUES...]")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, dir, release, namespace string, files []string) error {
	values := map[string]any{}
	for _, file := range files {
		more, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		values = chartutil.CoalesceTables(more, values)
	}
	loaded, err := loader.Load(dir)
	if err != nil {
		return fmt.Errorf("load %s: %w", dir, err)
	}
	manifests, err := render(loaded, values, release, namespace)
	if err != nil {
		return err
	}
	if err := check(dir, values, namespace); err != nil {
		return err
	}
	return write(out, manifests)
}

// check lints the chart. The icon that it recommends is for catalogues.
func check(dir string, values map[string]any, namespace string) error {
	var found []error
	for _, message := range lint.All(dir, values, namespace, true).Messages {
		if message.Severity > support.InfoSev {
			found = append(found, message)
		}
	}
	return errors.Join(found...)
}

func render(loaded *chart.Chart, values map[string]any, release, namespace string) (map[string]string, error) {
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	rendered, err := chartutil.ToRenderValues(loaded, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	strict := engine.Engine{Strict: true}
	return strict.Render(loaded, rendered)
}

// write prints the manifests by file, and the notes as comments.
func write(out io.Writer, manifests map[string]string) error {
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var names []string
	for name := range manifests {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch {
		case path.Base(name) == "NOTES.txt":
			fmt.Fprintf(out, "---\n# %s\n", strings.ReplaceAll(strings.TrimSpace(manifests[name]), "\n", "\n# "))
			continue
		case filepath.Ext(name) != ".yaml":
			continue
		}
		for _, document := range strings.Split("\n"+manifests[name], "\n---\n") {
			if strings.TrimSpace(document) == "" {
				continue
			}
			if _, _, err := decoder.Decode([]byte(document), nil, nil); err != nil && !runtime.IsNotRegisteredError(err) {
				return fmt.Errorf("%s: %w\n%s", name, err, document)
			}
			fmt.Fprintf(out, "---\n# %s\n%s\n", name, strings.TrimSpace(document))
		}
	}
	return nil
}
