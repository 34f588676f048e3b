package handler

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/rules"
)

// GetOrganisationRules returns the rules of an organisation that the caller sees.
func (a *api) GetOrganisationRules(ctx context.Context, request server.GetOrganisationRulesRequestObject) (server.GetOrganisationRulesResponseObject, error) {
	rules, err := a.db.OrganisationRules(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	setTag(ctx, rulesTag(rules))
	limits, err := toLimits(rules)
	return server.GetOrganisationRules200JSONResponse(limits), err
}

// UpdateOrganisationRules changes the rules that the request contains.
func (a *api) UpdateOrganisationRules(ctx context.Context, request server.UpdateOrganisationRulesRequestObject) (server.UpdateOrganisationRulesResponseObject, error) {
	patch, err := rulesPatch(request.Body)
	if err != nil {
		return nil, err
	}
	rules, err := a.db.UpdateOrganisationRules(ifMatch(ctx, rulesTag), auth.FromContext(ctx).Scope(), request.ID, patch)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	setTag(ctx, rulesTag(rules))
	limits, err := toLimits(rules)
	return server.UpdateOrganisationRules200JSONResponse(limits), err
}

// rulesPatch returns what a request changes of rules, which are among its fields: options,
// limits or nil. An empty list removes the rule, as null does.
func rulesPatch(fields any) (db.RulesPatch, error) {
	text, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	var patch map[types.RuleName]json.RawMessage
	if err := json.Unmarshal(text, &patch); err != nil {
		return "", err
	}
	maps.DeleteFunc(patch, func(name types.RuleName, _ json.RawMessage) bool { return !name.Valid() })
	if len(patch) == 0 {
		return "", nil
	}
	for name, value := range patch {
		if string(value) == "[]" {
			patch[name] = json.RawMessage("null")
		}
	}
	text, err = json.Marshal(patch)
	return db.RulesPatch(text), err
}

func toLimits(rules db.Rules) (types.RuleLimits, error) {
	var limits types.RuleLimits
	err := readRules(rules, &limits)
	return limits, err
}

// readRules adds rules to the fields of an answer.
func readRules(rules db.Rules, fields any) error {
	if rules == "" {
		return nil
	}
	return json.Unmarshal([]byte(rules), fields)
}

func toRuleSettings(site db.SiteRules) (types.RuleSettings, error) {
	builtIn, err := json.Marshal(rules.BuiltIn())
	if err != nil {
		return types.RuleSettings{}, err
	}
	var settings types.RuleSettings
	for limits, set := range map[*types.RuleLimits]db.Rules{
		&settings.BuiltIn: db.Rules(builtIn), &settings.Defaults: site.Defaults, &settings.Ceiling: site.Ceiling,
	} {
		if err := readRules(set, limits); err != nil {
			return types.RuleSettings{}, err
		}
	}
	return settings, nil
}
