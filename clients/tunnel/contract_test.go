package tunnel_test

import (
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

// methods are those that are not named as their operation.
var methods = map[string]string{
	"approveDevice":         "Approve",
	"connectControlChannel": "ControlChannel",
	"denyDevice":            "Deny",
	"endAccountSession":     "EndSession",
	"getHealth":             "Alive",
	"getJWKS":               "PublicKeys",
	"getPendingDevice":      "Pending",
	"getReadiness":          "Ready",
	"listAudit":             "EachAuditEntry",
	"listLoginProviders":    "LoginProviders",
	"listWebhookDeliveries": "EachWebhookDelivery",
	"regenerateDeviceToken": "RegenerateToken",
	"streamEvents":          "Events",
}

// without are operations without a method, and why.
var without = map[string]string{
	"beginProviderLogin":  "it leads a browser to the identity provider",
	"finishProviderLogin": "the identity provider sends the browser there",
	"getOpenAPI":          "programs are made from the contract, and do not read it",
	"getOpenAPIYAML":      "the same",
}

// methodOf returns the name of the method of an operation.
func methodOf(operation string) string {
	if name, ok := methods[operation]; ok {
		return name
	}
	if name, ok := strings.CutPrefix(operation, "get"); ok {
		return name
	}
	if name, ok := strings.CutPrefix(operation, "list"); ok {
		return "Each" + strings.TrimSuffix(name, "s")
	}
	return strings.ToUpper(operation[:1]) + operation[1:]
}

func TestClient_HasEveryOperationOfTheContract(t *testing.T) {
	var contract struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal(eclitunnel.OpenAPI, &contract); err != nil {
		t.Fatal(err)
	}
	client := reflect.TypeFor[*tunnel.Client]()
	count := 0
	for path, item := range contract.Paths {
		for method, node := range item {
			var operation struct {
				ID string `yaml:"operationId"`
			}
			if node.Kind != yaml.MappingNode || node.Decode(&operation) != nil || operation.ID == "" {
				continue // What all methods of the path share.
			}
			count++
			_, excused := without[operation.ID]
			if _, ok := client.MethodByName(methodOf(operation.ID)); ok == excused {
				t.Errorf("%s %s: the client's method %s: %v, and without it for a reason: %v", strings.ToUpper(method), path, methodOf(operation.ID), ok, excused)
			}
		}
	}
	if count < 50 {
		t.Errorf("the contract has %d operations", count)
	}
}
