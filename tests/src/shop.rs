//! A shop's database on MariaDB: something worth protecting, and the broker's own user in it.

use claviger_test_servers::Mariadb;

/// Puts the shop into the database `app` of `server`.
pub fn furnish(server: &Mariadb) {
    server.sql(DATABASE);
}

/// The password of the broker's own user; a canary that must appear nowhere.
pub const BROKER_PASSWORD: &str = "canary-shop-password-91bd";

const DATABASE: &str = "
CREATE ROLE orders_readonly;
CREATE TABLE orders (id int PRIMARY KEY, total_cents int NOT NULL);
INSERT INTO orders VALUES (1, 100), (2, 200), (3, 300);
GRANT SELECT ON app.orders TO orders_readonly;
CREATE USER claviger IDENTIFIED BY 'canary-shop-password-91bd';
GRANT CREATE USER, CONNECTION ADMIN ON *.* TO claviger;
GRANT UPDATE ON mysql.* TO claviger;
GRANT REFERENCES ON app.* TO claviger;
GRANT orders_readonly TO claviger WITH ADMIN OPTION;
";
