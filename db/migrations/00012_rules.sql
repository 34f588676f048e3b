-- +goose Up
-- Rules of allocations that somebody has set: objects whose fields are those of the contract's AllocationRules.
-- Address lists are only in those of an allocation. All columns have defaults, because the previous version
-- runs beside this one during an upgrade.
ALTER TABLE allocations ADD COLUMN rules jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(rules) = 'object');
ALTER TABLE organisations ADD COLUMN rules jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(rules) = 'object');
ALTER TABLE settings
    ADD COLUMN rule_defaults jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(rule_defaults) = 'object'),
    ADD COLUMN rule_ceiling  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(rule_ceiling) = 'object');

-- The names of the rules that a tunnel server keeps, as of its last hello.
ALTER TABLE devices ADD COLUMN kept_rules text[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE devices DROP COLUMN kept_rules;
ALTER TABLE settings DROP COLUMN rule_ceiling, DROP COLUMN rule_defaults;
ALTER TABLE organisations DROP COLUMN rules;
ALTER TABLE allocations DROP COLUMN rules;
