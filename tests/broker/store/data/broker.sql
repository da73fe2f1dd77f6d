-- A broker's database of schema version 1, as sqlite3 dumps it.
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        severity TEXT NOT NULL,
        code TEXT NOT NULL,
        text TEXT NOT NULL,
        host_id TEXT NOT NULL,
        host TEXT NOT NULL,
        vm_id TEXT NOT NULL,
        vm TEXT NOT NULL,
        cluster_id TEXT NOT NULL,
        event_number INTEGER,
        waiting INTEGER NOT NULL
    );
INSERT INTO "history" VALUES(1,1800000000000,'error','pcr_differs','Host host-1 is untrusted: PCR 17 is not the known one.','h1','host-1','','','pool',1800000000,0);
INSERT INTO "history" VALUES(2,1800000001000,'normal','pool_end','Pool Trusted is ended: token 1 decided so.','','','','','pool',NULL,0);
INSERT INTO "history" VALUES(3,1800000002000,'warning','vm_lost_trust','VM web runs on a host that is not trusted any more.','h1','host-1','v1','web','pool',1800000002,1);
CREATE TABLE tokens (
        digest TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        note TEXT NOT NULL,
        end_s INTEGER NOT NULL
    );
INSERT INTO "tokens" VALUES('cfae3fae189b06f696c5a794f6c8723c9ea0b22bfbca4c600b7733c3224d6089','viewer','the console',4611686018427387904);
INSERT INTO "tokens" VALUES('330256dcfc8a744c61a7ca9c211e29b38d3a97705bb8ad6fdd85dfa5b96f742f','operator','',1900000000);
CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        cluster_id TEXT NOT NULL,
        pool TEXT NOT NULL,
        marked INTEGER NOT NULL,
        needs_trust INTEGER NOT NULL,
        warned TEXT NOT NULL,
        gone INTEGER NOT NULL
    );
INSERT INTO "vms" VALUES('v1','pool','Trusted',1,1,'vm_untrusted',0);
INSERT INTO "vms" VALUES('v2','pool','Trusted',0,0,'',1);
CREATE INDEX history_at ON history (at_ms);
CREATE INDEX history_numbered ON history (id) WHERE event_number IS NOT NULL;
CREATE INDEX history_waiting ON history (id) WHERE waiting;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('history',3);
COMMIT;
