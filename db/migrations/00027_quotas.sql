-- +goose Up
-- All columns have defaults, because the previous version runs beside this one during an upgrade. Its replicas
-- hold no quota; what they add counts, and is not removed.
SELECT lock_together('users, organisations, settings IN ACCESS EXCLUSIVE');
-- Objects whose fields are those of the contract's QuotaLimits: of an owner those that are the owner's own, of the
-- site the default of all others. A field that is absent is no limit.
ALTER TABLE users ADD COLUMN quota jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quota) = 'object');
ALTER TABLE organisations ADD COLUMN quota jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quota) = 'object');
ALTER TABLE settings ADD COLUMN quota jsonb NOT NULL DEFAULT '{"portsOutsideRange": 0}' CHECK (jsonb_typeof(quota) = 'object');

SELECT audit_table('users', 'user', '{id,email,id,""}', '{email=email,email_proven=emailProven,role=role,suspended=suspended,quota=quota}', '{password_hash}');
SELECT audit_table('organisations', 'organisation', '{id,name,"",id}', '{name=name,rules=rules,quota=quota,provider=provider,external_id=externalId}');
SELECT audit_table('settings', 'settings', '{"","","",""}',
    '{tunnels_enabled=features.tunnels,anonymous_enrollment=enrollment.anonymous,owners_approve=enrollment.ownersApprove,organisation_creators=organisations.creators,quota=quota,rule_defaults=rules.defaults,rule_ceiling=rules.ceiling}',
    inserted => NULL, deleted => NULL);

-- +goose Down
SELECT lock_together('users, organisations, settings IN ACCESS EXCLUSIVE');
SELECT audit_table('users', 'user', '{id,email,id,""}', '{email=email,email_proven=emailProven,role=role,suspended=suspended}', '{password_hash}');
SELECT audit_table('organisations', 'organisation', '{id,name,"",id}', '{name=name,rules=rules,provider=provider,external_id=externalId}');
SELECT audit_table('settings', 'settings', '{"","","",""}',
    '{tunnels_enabled=features.tunnels,anonymous_enrollment=enrollment.anonymous,owners_approve=enrollment.ownersApprove,organisation_creators=organisations.creators,rule_defaults=rules.defaults,rule_ceiling=rules.ceiling}',
    inserted => NULL, deleted => NULL);
ALTER TABLE settings DROP COLUMN quota;
ALTER TABLE organisations DROP COLUMN quota;
ALTER TABLE users DROP COLUMN quota;
